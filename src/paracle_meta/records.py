"""What callers hold: one frozen record type a table, with the table's column names as fields.

A record gets its id and its times when it is constructed, so adding the same object again after a
lost answer is recognised as the same write. Nothing is checked here; repositories check a record
before anything is sent. Free text is left out of `repr`, so that no prompt reaches a log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from paracle_meta.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Vector: TypeAlias = Sequence[float] | NDArray[Any]
    """Numbers in a list, a tuple or an array."""

SearchMode: TypeAlias = Literal["vector", "text", "hybrid"]
"""What a search compares: the meaning, the words, or both."""


def utc_now() -> datetime:
    """Return the current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """Something a generator made.

    Attributes:
        id: Unique; made at construction unless given.
        artifact_type: What it is, such as ``agent``, ``workflow``, ``skill`` or ``policy``.
        name: What it is called.
        description: What was asked for.
        content: The text that was made.
        quality_score: 0 to 10, or None where nobody scored it.
        provider: Who ran the model, such as ``anthropic``.
        model: The model's name.
        tokens_used: Input and output tokens together.
        cost: US dollars; None means unknown, which is not 0.
        created_at: When it was made, in UTC.
        metadata: Any JSON object.
        updated_at: When the row was last written, in UTC.
    """

    id: str = field(default_factory=partial(new_id, "gen"))
    artifact_type: str
    name: str
    description: str | None = field(default=None, repr=False)
    content: str = field(repr=False)
    quality_score: float | None = None
    provider: str | None = None
    model: str | None = None
    tokens_used: int | None = None
    cost: float | None = None
    created_at: datetime = field(default_factory=utc_now)
    metadata: dict[str, Any] | None = field(default=None, repr=False)
    updated_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text good enough to start the next one from.

    Attributes:
        id: Unique; made at construction unless given.
        artifact_type: What it is, such as ``agent``.
        name: What it is called.
        pattern: What it is good for, in words; searched together with the name.
        content: The text of the template.
        quality_score: 0 to 10, or None.
        usage_count: How often it was used; grows by `record_use` only.
        source: Where it came from; ``generation:<id>`` after a promotion.
        created_at: When it was made, in UTC.
        embedding: Its vector. Give one to `add` to bring your own; when reading it is None
            unless asked for with ``with_embedding=True``.
        updated_at: When the row was last written, in UTC.
        embedding_model: The model that made the stored vector; None where none is stored.
    """

    id: str = field(default_factory=partial(new_id, "tpl"))
    artifact_type: str
    name: str
    pattern: str | None = field(default=None, repr=False)
    content: str = field(repr=False)
    quality_score: float | None = None
    usage_count: int = 0
    source: str | None = None
    created_at: datetime = field(default_factory=utc_now)
    embedding: Vector | None = field(default=None, repr=False)
    updated_at: datetime = field(default_factory=utc_now)
    embedding_model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What somebody thought of a generation.

    Attributes:
        id: Unique; made at construction unless given.
        generation_id: The generation that it is about; it must be stored.
        rating: 1 (bad) to 5 (excellent).
        comment: Free text.
        created_at: When it was given, in UTC.
        updated_at: When the row was last written, in UTC.
    """

    id: str = field(default_factory=partial(new_id, "fbk"))
    generation_id: str
    rating: int
    comment: str | None = field(default=None, repr=False)
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRecord:
    """What one call of a model cost.

    Attributes:
        id: Unique; made at construction unless given.
        provider: Who was paid.
        model: The model that was called.
        input_tokens: Tokens sent, or None where unknown.
        output_tokens: Tokens received, or None where unknown.
        cost: US dollars; None means unknown, which is not 0.
        period_type: ``daily`` for a call; ``monthly`` for days that were folded together.
        period_start: The day it fell on in the configured time zone (first of the month for
            ``monthly``).
        created_at: When the call was made, in UTC.
        updated_at: When the row was last written, in UTC.
    """

    id: str = field(default_factory=partial(new_id, "cst"))
    provider: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    period_type: str = "daily"
    period_start: date
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryItem:
    """One remembered value.

    Attributes:
        id: Unique; made at construction unless given.
        session_id: The session it belongs to, or None for none.
        key: Its name, unique within scope and session.
        value: Any JSON value; it comes back with its type.
        scope: ``session`` by default; any word, such as ``project`` or ``global``.
        created_at: When the key was first set, in UTC.
        expires_at: From when on it is gone, in UTC; None means never.
        updated_at: When it was last set, in UTC.
    """

    id: str = field(default_factory=partial(new_id, "mem"))
    session_id: str | None = None
    key: str
    value: Any = field(repr=False)
    scope: str = "session"
    created_at: datetime = field(default_factory=utc_now)
    expires_at: datetime | None = None
    updated_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPractice:
    """A piece of advice to build the next thing by.

    Attributes:
        id: Unique; made at construction unless given.
        category: What it is about, such as ``security``.
        title: The advice in a line.
        content: The advice in full.
        tags: Words to list it by.
        quality_score: 0 to 10, or None.
        usage_count: How often it was used; grows by `record_use` only.
        created_at: When it was made, in UTC.
        embedding: Its vector; see `Template.embedding`.
        updated_at: When the row was last written, in UTC.
        embedding_model: The model that made the stored vector; None where none is stored.
    """

    id: str = field(default_factory=partial(new_id, "bpr"))
    category: str
    title: str
    content: str = field(repr=False)
    tags: list[str] = field(default_factory=list)
    quality_score: float | None = None
    usage_count: int = 0
    created_at: datetime = field(default_factory=utc_now)
    embedding: Vector | None = field(default=None, repr=False)
    updated_at: datetime = field(default_factory=utc_now)
    embedding_model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateMatch(Template):
    """A template that a search found.

    Attributes:
        similarity: Cosine similarity to the query, -1 to 1, higher is closer. None where there is
            none: in a search by words, and in one by both for a record without a vector.
        score: What the result was ranked by, higher is better. In a search by meaning the
            similarity; by words how well the words fit (BM25, above 0 without a limit); by both how
            far the record stands out among the candidates. Only scores of one search compare.
    """

    similarity: float | None
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPracticeMatch(BestPractice):
    """A best practice that a search found.

    Attributes:
        similarity: Cosine similarity to the query, -1 to 1, higher is closer. None where there is
            none: in a search by words, and in one by both for a record without a vector.
        score: What the result was ranked by, higher is better. In a search by meaning the
            similarity; by words how well the words fit (BM25, above 0 without a limit); by both how
            far the record stands out among the candidates. Only scores of one search compare.
    """

    similarity: float | None
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostBreakdown:
    """One line of a cost report.

    Attributes:
        total: US dollars of the calls whose price is known, rounded to 1e-9.
        input_tokens: Tokens sent.
        output_tokens: Tokens received.
        calls: How many calls.
        unpriced_calls: How many of them have no known price.
    """

    total: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    unpriced_calls: int = 0

    @property
    def tokens(self) -> int:
        """Tokens sent and received."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport(CostBreakdown):
    """What was spent in one day or month.

    Attributes:
        period: ``daily`` or ``monthly``.
        start: The first day of the period.
        end: The last day of the period.
        by_provider: One line a provider, most expensive first.
        by_model: One line a model, most expensive first.
        by_day: One line a day on which something was recorded, in order. Days that were folded
            together stand under the first day of their month.
    """

    period: str
    start: date
    end: date
    by_provider: Mapping[str, CostBreakdown]
    by_model: Mapping[str, CostBreakdown]
    by_day: Mapping[date, CostBreakdown]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What `promote_qualified` did with one generation.

    Attributes:
        generation_id: The generation that qualified.
        template: The template made of it, now or earlier.
        reason: Why it qualified, in words.
        created: Whether the template was made by this call.
    """

    generation_id: str
    template: Template
    reason: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingReport:
    """What `MetaDatabase.reembed` or `embed_missing` did with one collection.

    Attributes:
        model: The embedding model.
        embedded: Records that were given a vector by this call.
        failed: Records that are left without one, as the provider refuses their text.
    """

    model: str
    embedded: int
    failed: int
