"""The six tables for SQLAlchemy, built from `paracle_meta.schema`.

For people who use SQLAlchemy Core inside `MetaDatabase.session()`, and for the tests that hold the
migrations to the schema. A column type here picks its storage per database and converts values
both ways. The migrations use these types too: a type that has been released keeps its storage, and
a new storage gets a new type.
"""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    JSON,
    TIMESTAMP,
    CheckConstraint,
    Column,
    Date,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    cast,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from paracle_meta import schema
from paracle_meta.exceptions import InvalidValueError
from paracle_meta.schema import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import BindParameter, ColumnElement, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler


class UtcTimestamp(TypeDecorator[datetime]):
    """A moment in UTC, to the microsecond.

    TIMESTAMPTZ on PostgreSQL; TIMESTAMP on SQLite, which keeps it as the text
    ``YYYY-MM-DD HH:MM:SS.ffffff``: sorted as text it is sorted in time. Values are timezone-aware
    both ways. SQLAlchemy wraps the InvalidValueError about a naive one as
    `StatementError.orig`.
    """

    impl = TIMESTAMP(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; SQLite stores it without the zone."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise InvalidValueError(
                "A time without a time zone was given. Give a timezone-aware one, such as "
                "datetime.now(UTC)."
            )
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return it in UTC, which is what SQLite's text without a zone means."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """Any JSON value, kept as text: TEXT on both databases.

    Args:
        none_as_null: Whether None is SQL's NULL; otherwise it is the JSON value ``null``.
    """

    impl = Text
    cache_ok = True

    def __init__(self, *, none_as_null: bool = False) -> None:
        super().__init__()
        self.none_as_null = none_as_null

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Compare bytewise, as every other text does."""
        return dialect.type_descriptor(TEXT)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode it."""
        del dialect
        if value is None and self.none_as_null:
            return None
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode it."""
        del dialect
        return None if value is None else json.loads(value)


class _VectorFromText(VECTOR):
    """pgvector's type, sent as text that the server casts.

    pgvector's own type also sends text, but as a parameter of type ``vector``, which fails on a
    connection where `pgvector.asyncpg.register_vector` has set another codec.
    """

    cache_ok = True

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return cast(cast(bindvalue, Text), VECTOR())


class Embedding(TypeDecorator["Sequence[float]"]):
    """float32 numbers; a list of floats comes back.

    BLOB on SQLite, little-endian, 4 bytes a number; pgvector's ``vector`` on PostgreSQL, with its
    operators, such as ``table.c.embedding.cosine_distance(vector)``.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = VECTOR.Comparator

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pick pgvector's type on PostgreSQL."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_VectorFromText())
        return dialect.type_descriptor(LargeBinary())

    def process_bind_param(self, value: Sequence[float] | None, dialect: Dialect) -> Any:
        """Pack it for SQLite."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return list(value)
        return struct.pack(f"<{len(value)}f", *value)

    def process_result_value(self, value: Any, dialect: Dialect) -> list[float] | None:
        """Unpack what SQLite gave."""
        if value is None or dialect.name == "postgresql":
            return value  # type: ignore[no-any-return]  # pgvector has made a list of it
        return list(struct.unpack(f"<{len(value) // 4}f", value))


# Text compares bytewise on both databases, so that order, paging and comparisons agree: SQLite does
# so by itself, PostgreSQL under its collation "C".
LABEL: Final[TypeEngine[str]] = String().with_variant(String(collation="C"), "postgresql")
TEXT: Final[TypeEngine[str]] = Text().with_variant(Text(collation="C"), "postgresql")
JSON_OBJECT: Final[TypeEngine[Any]] = JSON(none_as_null=True).with_variant(
    JSONB(none_as_null=True), "postgresql"
)
TAGS: Final[TypeEngine[Any]] = ARRAY(Text(collation="C")).with_variant(
    JsonText(none_as_null=True), "sqlite"
)

_TYPES: Final[Mapping[Kind, TypeEngine[Any]]] = {
    Kind.LABEL: LABEL,
    # Neither database treats VARCHAR differently from TEXT; foreign tools see what they expect.
    Kind.STRING: LABEL,
    Kind.TEXT: TEXT,
    Kind.INTEGER: Integer(),
    Kind.FLOAT: Float(),
    Kind.TIMESTAMP: UtcTimestamp(),
    Kind.DATE: Date(),
    Kind.JSON: JSON_OBJECT,
    Kind.JSON_TEXT: JsonText(),
    Kind.TAGS: TAGS,
    Kind.VECTOR: Embedding(),
}


class CurrentTimestamp(FunctionElement[datetime]):
    """The default of a time: now, in the form that `UtcTimestamp` stores."""

    inherit_cache = True


class CurrentDate(FunctionElement[Any]):
    """The default of a day: today in UTC, whatever the zone of the server or session."""

    inherit_cache = True


@compiles(CurrentTimestamp, "postgresql")
def _now_postgresql(element: CurrentTimestamp, compiler: SQLCompiler, **options: Any) -> str:
    del element, compiler, options
    return "CURRENT_TIMESTAMP"


@compiles(CurrentTimestamp, "sqlite")
def _now_sqlite(element: CurrentTimestamp, compiler: SQLCompiler, **options: Any) -> str:
    del element, compiler, options
    # %f gives milliseconds only; the zeros keep every stored time equally long, hence sortable.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(CurrentDate, "postgresql")
def _today_postgresql(element: CurrentDate, compiler: SQLCompiler, **options: Any) -> str:
    del element, compiler, options
    return "((CURRENT_TIMESTAMP AT TIME ZONE 'UTC')::date)"


@compiles(CurrentDate, "sqlite")
def _today_sqlite(element: CurrentDate, compiler: SQLCompiler, **options: Any) -> str:
    del element, compiler, options
    return "date('now')"


def build_metadata(
    schemas: Mapping[str, str | None] | None = None, *, vectors: bool = True
) -> MetaData:
    """Return the six tables.

    Args:
        schemas: The SQL schema of each table, by the table's name. On SQLite that is the name
            under which its file is attached. A table without one is looked for in the connection's
            default schema (PostgreSQL: the search path).
        vectors: Whether the tables have their ``embedding``; a PostgreSQL database without
            pgvector has none.
    """
    metadata = MetaData()
    for table in schema.TABLES:
        _add_table(metadata, table, schemas or {}, vectors=vectors)
    return metadata


def _add_table(
    metadata: MetaData,
    table: schema.Table[Any],
    schemas: Mapping[str, str | None],
    *,
    vectors: bool,
) -> None:
    columns = table.columns if vectors else table.stored_columns
    Table(
        table.name,
        metadata,
        *(_column(column) for column in columns),
        *(_check(table, column) for column in columns if _condition(column)),
        *(
            _foreign_key(f"{table.name}_{column.name}_fkey", column.name, target, schemas)
            for column in columns
            if (target := column.references)
        ),
        *(_index(table, index) for index in table.indexes),
        *(_tags_index(table, column) for column in columns if column.kind is Kind.TAGS),
        schema=schemas.get(table.name),
    )


def _column(column: schema.Column) -> Column[Any]:
    return Column(
        column.name,
        _TYPES[column.kind],
        primary_key=column.name == "id",
        nullable=column.nullable,
        server_default=_default(column),
    )


def _default(column: schema.Column) -> Any:
    if column.default is None:
        return None
    if column.kind is Kind.TIMESTAMP:
        return CurrentTimestamp()
    if column.kind is Kind.DATE:
        return CurrentDate()
    return str(column.default) if isinstance(column.default, str) else text(str(column.default))


def _condition(column: schema.Column) -> str:
    """Return what CHECK holds the column to; empty where nothing."""
    conditions = []
    if column.minimum is not None:
        conditions.append(f"{column.name} >= {column.minimum:g}")
    if column.maximum is not None:
        conditions.append(f"{column.name} <= {column.maximum:g}")
    if column.choices:
        choices = ", ".join(f"'{choice}'" for choice in column.choices)
        conditions.append(f"{column.name} IN ({choices})")
    return " AND ".join(conditions)


def _check(table: schema.Table[Any], column: schema.Column) -> CheckConstraint:
    return CheckConstraint(_condition(column), name=f"{table.name}_{column.name}_check")


def _foreign_key(
    name: str, column: str, target: str, schemas: Mapping[str, str | None]
) -> ForeignKeyConstraint:
    """Return the key, which SQLite cannot have: the tables are in different files."""
    place = schemas.get(target)
    key = ForeignKeyConstraint(
        [column], [f"{place}.{target}.id" if place else f"{target}.id"], name=name
    )
    key.ddl_if(dialect="postgresql")
    return key


def _index(table: schema.Table[Any], index: schema.Index) -> Index:
    entries = (entry if table.column(entry) else text(entry) for entry in index.columns)
    return Index(index.name, *entries, unique=index.unique)


def _tags_index(table: schema.Table[Any], column: schema.Column) -> Index:
    """Return the index that finds rows by a tag; SQLite, with its JSON lists, has no such kind."""
    index = Index(f"{table.name}_{column.name}_idx", column.name, postgresql_using="gin")
    index.ddl_if(dialect="postgresql")
    return index
