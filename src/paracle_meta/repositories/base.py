"""What all repositories can do: add, get, list, count, update, delete.

A repository checks what it is given, asks the backend once, and returns records. It never asks
which database it is on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from paracle_meta.exceptions import InvalidValueError, NotFoundError
from paracle_meta.filters import Condition, Operator, parse_filters, where
from paracle_meta.records import utc_now
from paracle_meta.turns import in_turns
from paracle_meta.validation import check_changes, check_id, check_page, check_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from paracle_meta.backends.base import Stored, Values
    from paracle_meta.database import MetaDatabase
    from paracle_meta.schema import Table

R = TypeVar("R")

DEFAULT_PAGE = 50
"""Records a page unless told otherwise: about what a person looks through."""


class Reader(Generic[R]):
    """Reading and deleting, which every kind allows."""

    table: ClassVar[Table[Any]]

    def __init__(self, database: MetaDatabase) -> None:
        """Stand on a database, which need not be open yet."""
        self._database = database

    async def get(self, record_id: str) -> R | None:
        """Return a record by its id, or None where none has it.

        Raises:
            InvalidValueError: No record can have this id.
        """
        backend = await self._database.backend()
        record: R | None = await backend.get(self.table, check_id(self.table, record_id))
        return record

    async def delete(self, record_id: str) -> None:
        """Delete a record.

        Raises:
            NotFoundError: No record has this id.
        """
        backend = await self._database.backend()
        if not await backend.delete(self.table, check_id(self.table, record_id)):
            raise self._not_found(record_id)

    async def _page(
        self, limit: int, after: str | None, conditions: Iterable[Condition]
    ) -> list[R]:
        checked = check_page(limit)
        if after is not None:
            check_id(self.table, after)
        backend = await self._database.backend()
        page: list[R] = await backend.select(
            self.table, tuple(conditions), limit=checked, after=after
        )
        return page

    async def _count(self, conditions: Iterable[Condition]) -> int:
        backend = await self._database.backend()
        return await backend.count(self.table, tuple(conditions))

    def _conditions(
        self,
        since: datetime | None,
        until: datetime | None,
        filters: Mapping[str, Any] | None,
        **equal: Any,
    ) -> list[Condition]:
        """Return what the arguments of a list ask for; None asks for nothing."""
        conditions = list(parse_filters(self.table, filters))
        if since is not None:
            conditions.append(where(self.table, "created_at", Operator.GTE, since))
        if until is not None:
            conditions.append(where(self.table, "created_at", Operator.LT, until))
        conditions += [
            where(self.table, name, Operator.EQ, value)
            for name, value in equal.items()
            if value is not None
        ]
        return conditions

    def _not_found(self, record_id: str) -> NotFoundError:
        return NotFoundError(f"There is no {self.table.noun} with the id {record_id!r:.90}.")


class Repository(Reader[R]):
    """Reading, writing and deleting."""

    async def add(self, record: R) -> R:
        """Store a record and return it as it is stored.

        Adding the identical record again changes nothing, so a call whose answer was lost may be
        repeated. The times and what the store itself keeps up make no difference.

        Raises:
            InvalidValueError: A value is outside what its column allows.
            DuplicateError: Another record has this id.
        """
        (stored,) = await self.add_many([record])
        return stored

    async def add_many(self, records: Iterable[R]) -> list[R]:
        """Store several records in one transaction, all or none; see `add`."""
        rows = await in_turns(self._checked, records)
        return (await self._store(rows)).records if rows else []

    async def update(self, record_id: str, **changes: Any) -> R:
        """Change columns of a record and return it as it is then.

        Args:
            record_id: Which one.
            **changes: Columns with their new values. The id, the times, the usage count and what a
                record refers to cannot change.

        Raises:
            InvalidValueError: A column cannot change, or a value is outside what it allows.
            NotFoundError: No record has this id.
        """
        check_id(self.table, record_id)
        checked = check_changes(self.table, changes, self._database.settings.content_limit)
        return await self._change(record_id, checked)

    async def _change(self, record_id: str, changes: Values) -> R:
        backend = await self._database.backend()
        record: R | None = await backend.update(
            self.table, record_id, {**changes, "updated_at": utc_now()}
        )
        if record is None:
            raise self._not_found(record_id)
        return record

    async def _store(self, rows: list[Values]) -> Stored[R]:
        await self._complete(rows)
        backend = await self._database.backend()
        stored: Stored[R] = await backend.insert(self.table, rows)
        return stored

    def _checked(self, record: R) -> Values:
        return check_record(self.table, record, self._database.settings.content_limit)

    async def _complete(self, rows: list[Values]) -> None:
        """Fill in what is made from other columns; here nothing."""


def check_period(period: str) -> str:
    """Return a kind of period.

    Raises:
        InvalidValueError: It is neither ``daily`` nor ``monthly``.
    """
    if period not in ("daily", "monthly"):
        raise InvalidValueError(f"period must be 'daily' or 'monthly', not {period!r:.40}.")
    return period
