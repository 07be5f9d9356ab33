"""Every error that paracle_meta raises, as one tree.

A message says what happened and what to do next. No message carries a password, a key, a prompt or
the text of a record; the driver's own error is kept as ``__cause__``.

    ParacleMetaError
    ├── ConfigurationError
    ├── DatabaseError
    │   ├── DatabaseConnectionError
    │   ├── DatabaseBusyError
    │   ├── StorageError
    │   ├── MigrationError
    │   └── QueryError
    ├── IntegrityError
    │   ├── DuplicateError
    │   ├── NotFoundError
    │   ├── InUseError
    │   └── InvalidValueError
    ├── EmbeddingError
    │   ├── EmbeddingProviderError
    │   ├── EmbeddingBatchError
    │   └── EmbeddingModelMismatchError
    └── TransferError
        ├── UnportableError
        └── RejectedLinesError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ParacleMetaError(Exception):
    """Base of all errors of this package: catch it to catch them all."""


class ConfigurationError(ParacleMetaError):
    """A setting is unknown, missing or cannot have this value; the message names its place."""


class DatabaseError(ParacleMetaError):
    """The database could not do what was asked; see the subclasses."""


class DatabaseConnectionError(DatabaseError):
    """No connection: the server is away, refuses the role or password, or the pool is exhausted."""


class DatabaseBusyError(DatabaseError):
    """Another writer held a lock for longer than `busy_timeout`; the call may be repeated."""


class StorageError(DatabaseError):
    """A file or disk is full, read-only, damaged or not a database."""


class MigrationError(DatabaseError):
    """The schema is not the one this version needs and could not be made so."""


class QueryError(DatabaseError):
    """The database refused a statement, most often one given to `MetaDatabase.session()`."""


class IntegrityError(ParacleMetaError):
    """The call contradicts what is stored, or its arguments contradict the rules of a record."""


class DuplicateError(IntegrityError):
    """A different record is stored under the same id or key."""


class NotFoundError(IntegrityError):
    """No record has this id."""


class InUseError(IntegrityError):
    """Other records depend on this one, so it is not deleted."""


class InvalidValueError(IntegrityError):
    """A value is outside what its column or argument allows; the message names which and why."""


class EmbeddingError(ParacleMetaError):
    """A text could not be turned into a vector; see the subclasses."""


class EmbeddingProviderError(EmbeddingError):
    """The provider is away, refused the call, or answered with something that is no embedding."""


class EmbeddingBatchError(EmbeddingError):
    """Some texts of a batch could not be embedded; the good ones are kept.

    Attributes:
        embeddings: one item a text, in the order given: its vector, or None where it failed.
        failures: the position of each failed text and why it failed.
    """

    def __init__(
        self, embeddings: Sequence[list[float] | None], failures: Mapping[int, str]
    ) -> None:
        self.embeddings = list(embeddings)
        self.failures = dict(failures)
        first = "; ".join(f"text {index}: {why}" for index, why in list(self.failures.items())[:3])
        super().__init__(
            f"{len(self.failures)} of {len(self.embeddings)} texts could not be embedded "
            f"({first}). The vectors of the others are in the attribute `embeddings`."
        )


class EmbeddingModelMismatchError(EmbeddingError):
    """The stored vectors were made by another model than the one that is configured."""


class TransferError(ParacleMetaError):
    """An export, import, copy, backup or restore could not be made; the message says why."""


class UnportableError(TransferError):
    """Values are stored that no other database can hold; nothing was written.

    Attributes:
        values: what is wrong, one line a value: its table, id, column and reason.
        more: how many more there are than are named.
    """

    def __init__(self, values: Sequence[str], more: int = 0) -> None:
        self.values = list(values)
        self.more = more
        first = "; ".join(self.values[:3])
        super().__init__(
            f"{len(self.values) + more} stored values cannot be held elsewhere ({first}). Mend "
            "them, or export with replacements (--replace). The attribute `values` names them."
        )


class RejectedLinesError(TransferError):
    """A strict import met lines that cannot be stored; nothing was written.

    Attributes:
        lines: the number of each such line, or in a folder its file and number, such as
            ``feedback.jsonl:3``, and why it cannot be stored.
    """

    def __init__(self, lines: Mapping[int | str, str]) -> None:
        self.lines = dict(lines)
        first = "; ".join(f"line {place}: {why}" for place, why in list(self.lines.items())[:3])
        super().__init__(
            f"{len(self.lines)} lines cannot be stored ({first}), so nothing was written. Mend "
            "them, or import without strict. The attribute `lines` names them all."
        )
