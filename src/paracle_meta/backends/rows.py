"""What both backends do with rows that are stored already."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from paracle_meta.backends.builder import RecordBuilder
from paracle_meta.exceptions import (
    DuplicateError,
    EmbeddingModelMismatchError,
    InUseError,
    NotFoundError,
    TransferError,
)
from paracle_meta.filters import Condition, Operator
from paracle_meta.validation import same_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from paracle_meta.backends.base import Values
    from paracle_meta.schema import Column, Table

R = TypeVar("R")


def columns_to_insert(table: Table[Any], rows: Sequence[Values]) -> list[Column]:
    """Return the columns that an insert names: the vector only where a row has one."""
    if vector_model(table, rows):
        return list(table.columns)
    return list(table.stored_columns)


def vector_model(table: Table[Any], rows: Iterable[Values]) -> str | None:
    """Return the model of the rows' vectors, which is one for all, or None without vectors."""
    if not table.has_vector:
        return None
    return next((row["embedding_model"] for row in rows if row["embedding_model"]), None)


def new_records(table: Table[R], rows: Sequence[Values]) -> list[R]:
    """Return the records of rows that were just stored, as reading would return them."""
    names, build = _builder(table)
    return [build([row[name] for name in names]) for row in rows]


@cache
def _builder(table: Table[R]) -> tuple[list[str], RecordBuilder[R]]:
    """Return the names of what a row has, and what makes a record of it; one a table."""
    names = [column.name for column in table.stored_columns]
    return names, RecordBuilder(table.record, names)


def stored_records(table: Table[R], rows: Sequence[Values], stored: Iterable[R]) -> list[R]:
    """Return the stored record of each row.

    Raises:
        DuplicateError: One of them is not what the row would have stored.
    """
    by_id: dict[str, R] = {record.id: record for record in stored}  # type: ignore[attr-defined]
    for row in rows:
        if not same_record(table, by_id[row["id"]], row):
            raise DuplicateError(
                f"Another {table.noun} is stored under the id {row['id']!r:.90}; "
                "change it with update, or give the new one an id of its own."
            )
    return [by_id[row["id"]] for row in rows]


def check_parents(table: Table[Any], column: Column, wanted: set[str], found: set[str]) -> None:
    """Raise NotFoundError where a row refers to a record that is not stored."""
    missing = sorted(wanted - found)
    if missing:
        raise missing_parent(table, column, missing[0])


def missing_parent(table: Table[Any], column: Column, record_id: str) -> NotFoundError:
    """Return the error for a row that refers to a record that is not stored."""
    return NotFoundError(
        f"{table.name}.{column.name} names {record_id!r:.90}, which is not in {column.references}; "
        "add that first."
    )


def orphans_left(child: Table[Any], count: int) -> TransferError:
    """Return the error for moving rows that refer to records that are not stored."""
    parents = ", ".join(column.references for column in child.columns if column.references)
    return TransferError(
        f"{count} rows of {child.name} refer to {parents} that are not stored, which only other "
        'programs can have brought about. Set them aside first: "paracle meta doctor --fix".'
    )


def in_use(table: Table[Any], child: Table[Any]) -> InUseError:
    """Return the error for deleting a record that others refer to."""
    return InUseError(
        f"The {table.noun} has {child.name}; delete that first, or delete both with cascade=True."
    )


def not_on_page(table: Table[Any], record_id: str) -> NotFoundError:
    """Return the error for a page that starts after a record that is not stored."""
    return NotFoundError(
        f"There is no {table.noun} with the id {record_id!r:.90} to go on after; "
        "start again without `after`."
    )


def check_models(table: Table[Any], model: str, stored: Iterable[str | None]) -> None:
    """Raise EmbeddingModelMismatchError where stored vectors are of another model than `model`."""
    others = sorted({other for other in stored if other is not None and other != model})
    if others:
        raise EmbeddingModelMismatchError(
            f"The vectors in {table.name} were made by {others[0]!r:.90} and cannot be compared "
            f"with those of {model!r:.90}. Configure that model again, or make the vectors anew "
            "with `paracle meta reembed`."
        )


def unchanged(table: Table[Any], since: datetime | None) -> tuple[Condition, ...]:
    """Return the condition that a record has not been written since it was read."""
    column = table.column("updated_at")
    if since is None or column is None:
        return ()
    return (Condition(column, Operator.EQ, since),)
