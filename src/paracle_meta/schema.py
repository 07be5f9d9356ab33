"""The six tables as plain data: the one source of columns, kinds, limits and checks.

SQL statements, SQLAlchemy tables, the checks of a record and the rules of a filter are all made
from what stands here. Nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from paracle_meta import records

R = TypeVar("R")

MAX_LABEL_BYTES: Final = 512
"""Longest id, key or label in UTF-8 bytes: three fit an index entry of PostgreSQL (2,704)."""

MAX_COUNT: Final = 2**31 - 1
"""Largest token or usage count: what INTEGER holds on PostgreSQL."""

MAX_COST: Final = 1e9
"""Most US dollars of one row: sums of any number of rows stay finite, and a mistaken unit shows."""

MAX_JSON_DEPTH: Final = 100
"""Deepest nesting of a JSON value: far below where Python or PostgreSQL run out of stack."""


class Kind(StrEnum):
    """What a column holds; each database picks its own storage for it."""

    LABEL = "label"
    """Text of at most MAX_LABEL_BYTES, not empty."""
    STRING = "string"
    """Text up to the configured content limit, declared VARCHAR."""
    TEXT = "text"
    """Text up to the configured content limit."""
    INTEGER = "integer"
    """0 to MAX_COUNT, or the bounds of the column."""
    FLOAT = "float"
    """A finite double."""
    TIMESTAMP = "timestamp"
    """A moment in UTC, to the microsecond."""
    DATE = "date"
    """A day."""
    JSON = "json"
    """A JSON object."""
    JSON_TEXT = "json_text"
    """Any JSON value, kept as the text that it was written with."""
    TAGS = "tags"
    """A list of labels."""
    VECTOR = "vector"
    """float32 numbers; provisioned beside the migrations, as its width depends on the model."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: As in the database and in the record.
        kind: What it holds.
        nullable: Whether it may be missing.
        default: Value that the database fills in for plain SQL: a literal, or NOW or TODAY.
        minimum: Least number allowed.
        maximum: Greatest number allowed.
        choices: The only texts allowed.
        references: The table whose id it must be.
        required_text: Whether blank text is refused.
    """

    name: str
    kind: Kind
    nullable: bool = True
    default: str | int | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    references: str | None = None
    required_text: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """One index; an entry of `columns` is a column's name or `OR_EMPTY` around it."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[R]):
    """One kind of record.

    Attributes:
        name: Of the table, and of the SQLite file that holds it.
        record: The type that a row becomes.
        columns: In the order of the record's fields.
        indexes: Beside the primary key ``id``.
        noun: What a message calls one record.
        match: The record with its similarity, where the table can be searched.
        embedded: The columns whose text is embedded: the first, with the first of the others that
            is not empty.
        searched: The columns whose words are searched.
    """

    name: str
    record: type[R]
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    noun: str
    match: type[R] | None = None
    embedded: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()

    def column(self, name: str) -> Column | None:
        """Return the column of this name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """All columns but the vector, which only some installations have."""
        return tuple(column for column in self.columns if column.kind is not Kind.VECTOR)

    @property
    def has_vector(self) -> bool:
        """Whether its records can be searched by meaning."""
        return self.match is not None


NOW: Final = "now"
TODAY: Final = "today"

UNCOMPARED: Final = frozenset(
    {"created_at", "updated_at", "usage_count", "embedding", "embedding_model"}
)
"""Columns that do not make two records with one id different: what the store itself keeps up."""


def or_empty(column: str) -> str:
    """Return the index entry that takes a missing value as empty text, so that it is unique too."""
    return f"COALESCE({column}, '')"


_ID = Column("id", Kind.LABEL, nullable=False)
_CREATED = Column("created_at", Kind.TIMESTAMP, nullable=False, default=NOW)
_UPDATED = Column("updated_at", Kind.TIMESTAMP, nullable=False, default=NOW)
_SCORE = Column("quality_score", Kind.FLOAT, minimum=0, maximum=10)
_COST = Column("cost", Kind.FLOAT, minimum=0, maximum=MAX_COST)
_USAGE = Column("usage_count", Kind.INTEGER, nullable=False, default=0, minimum=0)
_CONTENT = Column("content", Kind.TEXT, nullable=False, required_text=True)
_EMBEDDING = Column("embedding", Kind.VECTOR)
_MODEL = Column("embedding_model", Kind.LABEL)


def _name(name: str) -> Column:
    return Column(name, Kind.STRING, nullable=False, required_text=True)


def _count(name: str) -> Column:
    return Column(name, Kind.INTEGER, minimum=0)


def _newest(table: str) -> Index:
    return Index(f"{table}_newest_idx", ("created_at", "id"))


def _newest_by(table: str, column: str) -> Index:
    return Index(f"{table}_{column}_idx", (column, "created_at", "id"))


GENERATIONS: Final = Table(
    name="generations",
    record=records.GenerationResult,
    noun="generation",
    columns=(
        _ID,
        Column("artifact_type", Kind.LABEL, nullable=False),
        _name("name"),
        Column("description", Kind.TEXT),
        _CONTENT,
        _SCORE,
        Column("provider", Kind.LABEL),
        Column("model", Kind.LABEL),
        _count("tokens_used"),
        _COST,
        _CREATED,
        Column("metadata", Kind.JSON),
        _UPDATED,
    ),
    indexes=(
        _newest("generations"),
        _newest_by("generations", "artifact_type"),
        _newest_by("generations", "provider"),
    ),
)

TEMPLATES: Final = Table(
    name="templates",
    record=records.Template,
    match=records.TemplateMatch,
    noun="template",
    embedded=("name", "pattern", "content"),
    searched=("name", "pattern", "content"),
    columns=(
        _ID,
        Column("artifact_type", Kind.LABEL, nullable=False),
        _name("name"),
        Column("pattern", Kind.STRING),
        _CONTENT,
        _SCORE,
        _USAGE,
        Column("source", Kind.STRING),
        _CREATED,
        _EMBEDDING,
        _UPDATED,
        _MODEL,
    ),
    indexes=(
        _newest("templates"),
        _newest_by("templates", "artifact_type"),
        Index("templates_embedding_model_idx", ("embedding_model",)),
    ),
)

FEEDBACK: Final = Table(
    name="feedback",
    record=records.Feedback,
    noun="feedback",
    columns=(
        _ID,
        Column("generation_id", Kind.LABEL, nullable=False, references="generations"),
        Column("rating", Kind.INTEGER, nullable=False, minimum=1, maximum=5),
        Column("comment", Kind.TEXT),
        _CREATED,
        _UPDATED,
    ),
    indexes=(_newest("feedback"), _newest_by("feedback", "generation_id")),
)

COSTS: Final = Table(
    name="costs",
    record=records.CostRecord,
    noun="cost",
    columns=(
        _ID,
        Column("provider", Kind.LABEL, nullable=False),
        Column("model", Kind.LABEL, nullable=False),
        _count("input_tokens"),
        _count("output_tokens"),
        _COST,
        Column(
            "period_type",
            Kind.LABEL,
            nullable=False,
            default="daily",
            choices=("daily", "monthly"),
        ),
        Column("period_start", Kind.DATE, nullable=False, default=TODAY),
        _CREATED,
        _UPDATED,
    ),
    indexes=(
        _newest("costs"),
        Index("costs_period_idx", ("period_start", "period_type", "provider", "model")),
    ),
)

MEMORY: Final = Table(
    name="memory",
    record=records.MemoryItem,
    noun="memory item",
    columns=(
        _ID,
        Column("session_id", Kind.LABEL),
        Column("key", Kind.LABEL, nullable=False),
        Column("value", Kind.JSON_TEXT, nullable=False),
        Column("scope", Kind.LABEL, nullable=False, default="session"),
        _CREATED,
        Column("expires_at", Kind.TIMESTAMP),
        _UPDATED,
    ),
    indexes=(
        _newest("memory"),
        Index("memory_key_idx", ("scope", or_empty("session_id"), "key"), unique=True),
        Index("memory_expires_at_idx", ("expires_at",)),
    ),
)

BEST_PRACTICES: Final = Table(
    name="best_practices",
    record=records.BestPractice,
    match=records.BestPracticeMatch,
    noun="best practice",
    embedded=("title", "content"),
    searched=("title", "content", "tags"),
    columns=(
        _ID,
        Column("category", Kind.LABEL, nullable=False),
        _name("title"),
        _CONTENT,
        Column("tags", Kind.TAGS),
        _SCORE,
        _USAGE,
        _CREATED,
        _EMBEDDING,
        _UPDATED,
        _MODEL,
    ),
    indexes=(
        _newest("best_practices"),
        _newest_by("best_practices", "category"),
        Index("best_practices_embedding_model_idx", ("embedding_model",)),
    ),
)

TABLES: Final[tuple[Table[Any], ...]] = (
    GENERATIONS,
    TEMPLATES,
    FEEDBACK,
    COSTS,
    MEMORY,
    BEST_PRACTICES,
)
"""In the order in which SQLite attaches their files and rows with references can be loaded."""

BY_NAME: Final[dict[str, Table[Any]]] = {table.name: table for table in TABLES}

COLLECTIONS: Final[dict[str, Table[Any]]] = {
    table.name: table for table in TABLES if table.has_vector
}
"""What can be searched by meaning, by name."""


def referenced(column: Column) -> Table[Any]:
    """Return the table whose ids the values of a column are.

    Raises:
        ValueError: They are none.
    """
    if column.references is None:
        raise ValueError(f"{column.name} refers to nothing")
    return BY_NAME[column.references]


def referencing(table: Table[Any]) -> tuple[tuple[Table[Any], Column], ...]:
    """Return each table and column whose rows point at a row of `table`."""
    return tuple(
        (other, column)
        for other in TABLES
        for column in other.columns
        if column.references == table.name
    )
