"""Random calls of everything that a user can call, as data that can be run on any database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRecord,
    CostRepository,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)


class Call(NamedTuple):
    """A method of a repository with its arguments."""

    repository: type[Any]
    method: str
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}  # noqa: RUF012 - never changed

    async def run(self, database: MetaDatabase) -> Any:
        return await getattr(self.repository(database), self.method)(*self.arguments, **self.named)


# Few ids, times and words, so that records meet: duplicates, ties, matches.
MOMENTS = [
    datetime(2026, 2, 28, 23, 59, 58, 999_999, tzinfo=UTC) + timedelta(seconds=n / 2)
    for n in range(6)
]
DAYS = [date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 31), date(2026, 12, 31)]
WORDS = ["agent", "Agent", "ägent", "a", "b", "Ω", "😀", "\uffee", "a b", "agents write code"]


def some_id(prefix: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{prefix}-{letter}" for letter in "abCäZ"])


odd_text = st.text(st.characters(), max_size=12)  # with NUL and surrogates: refused by both
word = st.sampled_from(WORDS)
words = st.one_of(*[word] * 12, odd_text)
maybe = st.one_of(st.none(), word, words)
moments = st.sampled_from(MOMENTS)
scores = st.one_of(
    st.none(),
    *[st.sampled_from([0, 3, 7.9, 8, 8.0, 10])] * 4,
    *[st.floats(0, 10)] * 2,
    st.sampled_from([5, -1, 11, float("nan"), True, "8"]),
)
counts = st.one_of(
    st.none(), *[st.integers(0, 2**31 - 1)] * 6, st.sampled_from([0, -1, 2**31, 1.0])
)
cents = st.one_of(st.none(), st.integers(0, 100_000).map(lambda n: n / 100))
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.floats(1e15, 1e23),
        st.text(st.characters(), max_size=8),
        st.sampled_from([1, 1.0, True, -0.0, "1e+16", '"1e+16"']),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)

generations = st.builds(
    GenerationResult,
    id=some_id("gen"),
    artifact_type=st.sampled_from(WORDS[:3]),
    name=words,
    description=maybe,
    content=words,
    quality_score=scores,
    provider=maybe,
    model=st.none(),
    tokens_used=counts,
    cost=cents,
    created_at=moments,
    updated_at=moments,
    metadata=st.one_of(st.none(), st.dictionaries(st.text(max_size=4), json_values, max_size=2)),
)
# Many are the same, so that adding again is tried too.
plain_generations = st.builds(
    GenerationResult,
    id=some_id("gen"),
    artifact_type=st.just("agent"),
    name=st.just("agent"),
    content=st.just("writes code"),
    quality_score=st.sampled_from([None, 8.5]),
    created_at=moments,
    updated_at=moments,
)
feedback = st.builds(
    Feedback,
    id=some_id("fbk"),
    generation_id=some_id("gen"),
    rating=st.one_of(*[st.integers(1, 5)] * 5, st.integers(0, 6)),
    comment=maybe,
    created_at=moments,
    updated_at=moments,
)
templates = st.builds(
    Template,
    id=some_id("tpl"),
    artifact_type=st.sampled_from(WORDS[:3]),
    name=words,
    pattern=maybe,
    content=words,
    quality_score=scores,
    source=maybe,
    created_at=moments,
    updated_at=moments,
)
tags = st.lists(st.sampled_from(["a", "A", "a,b", '"', "{}", "ä"]), max_size=3)
practices = st.builds(
    BestPractice,
    id=some_id("bpr"),
    category=st.sampled_from(WORDS[:3]),
    title=words,
    content=words,
    tags=tags,
    created_at=moments,
    updated_at=moments,
)
costs = st.builds(
    CostRecord,
    id=some_id("cst"),
    provider=st.sampled_from(WORDS[:3]),
    model=st.sampled_from(WORDS[:3]),
    input_tokens=counts,
    output_tokens=counts,
    cost=cents,
    period_type=st.sampled_from([*["daily"] * 6, *["monthly"] * 3, "yearly"]),
    period_start=st.sampled_from(DAYS),
    created_at=moments,
    updated_at=moments,
)

text_filters = st.one_of(
    words,
    st.none(),
    st.dictionaries(
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), words, max_size=2
    ),
    st.fixed_dictionaries({"$in": st.lists(maybe, max_size=3)}),
    st.fixed_dictionaries({"$ne": maybe}),
)
number_filters = st.one_of(
    st.floats(),
    st.none(),
    st.integers(),
    st.dictionaries(
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
        st.one_of(st.floats(0, 10), st.integers(0, 10)),
        max_size=2,
    ),
)
time_filters = st.dictionaries(
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), moments, max_size=2
)


def listing(prefix: str, **filters: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "limit": st.one_of(*[st.integers(1, 5)] * 5, st.integers(-1, 10_001)),
            "after": some_id(prefix),
            "since": moments,
            "until": moments,
            "filters": st.fixed_dictionaries({}, optional=filters),
        },
    )


def calls_of(
    repository: type[Any],
    prefix: str,
    record: st.SearchStrategy[Any],
    changes: st.SearchStrategy[dict[str, Any]],
    lists: st.SearchStrategy[dict[str, Any]],
) -> list[st.SearchStrategy[Call]]:
    """Return what every repository can do."""
    one = some_id(prefix)
    counted = lists.map(
        lambda named: {k: v for k, v in named.items() if k not in {"limit", "after"}}
    )
    return [
        *[call(repository, "add", record)] * 3,
        call(repository, "add_many", st.lists(record, max_size=4)),
        call(repository, "get", one),
        call(repository, "delete", one),
        _call(repository, "update", st.tuples(one), changes),
        _call(repository, "list", st.just(()), lists),
        _call(repository, "count", st.just(()), counted),
    ]


def changes(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=strategies)


def call(
    repository: type[Any], method: str, *arguments: st.SearchStrategy[Any], **named: Any
) -> st.SearchStrategy[Call]:
    return _call(
        repository, method, st.tuples(*arguments), st.fixed_dictionaries({}, optional=named)
    )


def _call(
    repository: type[Any],
    method: str,
    arguments: st.SearchStrategy[tuple[Any, ...]],
    named: st.SearchStrategy[dict[str, Any]],
) -> st.SearchStrategy[Call]:
    return st.tuples(arguments, named).map(lambda given: Call(repository, method, *given))


sessions = st.sampled_from([None, "s", "S", ""])
keys = st.sampled_from(["k", "K", "ключ", "\0"])
searched = st.sampled_from([*WORDS, "write code for an agent", " "])

all_calls = st.one_of(
    *calls_of(
        GenerationRepository,
        "gen",
        st.one_of(plain_generations, plain_generations, generations),
        changes(name=words, description=maybe, quality_score=scores, tokens_used=counts),
        listing(
            "gen",
            name=text_filters,
            description=text_filters,
            provider=text_filters,
            quality_score=number_filters,
            created_at=time_filters,
        ),
    ),
    call(GenerationRepository, "delete", some_id("gen"), cascade=st.booleans()),
    call(GenerationRepository, "get_with_feedback", some_id("gen")),
    call(GenerationRepository, "list_recent", st.integers(0, 4)),
    *calls_of(
        FeedbackRepository,
        "fbk",
        feedback,
        changes(rating=st.integers(0, 6), comment=maybe),
        listing("fbk", rating=number_filters, comment=text_filters),
    ),
    call(FeedbackRepository, "add", feedback),
    call(FeedbackRepository, "get_for_generation", some_id("gen"), limit=st.integers(1, 3)),
    *calls_of(
        TemplateRepository,
        "tpl",
        templates,
        changes(name=words, pattern=maybe, content=words, quality_score=scores),
        listing("tpl", name=text_filters, source=text_filters, quality_score=number_filters),
    ),
    call(TemplateRepository, "record_use", some_id("tpl")),
    call(TemplateRepository, "promote_from_generation", some_id("gen")),
    call(TemplateRepository, "promote_qualified"),
    call(
        TemplateRepository,
        "find_similar",
        searched,
        top_k=st.integers(0, 6),
        artifact_type=st.sampled_from(WORDS[:3]),
        filters=st.fixed_dictionaries({}, optional={"source": text_filters}),
        min_similarity=st.sampled_from([-1, 0.0501, 0.4999, float("nan")]),
    ),
    *calls_of(
        BestPracticeRepository,
        "bpr",
        practices,
        changes(title=words, tags=tags, category=st.sampled_from(WORDS)),
        listing("bpr", title=text_filters, category=text_filters),
    ),
    call(BestPracticeRepository, "list", tags=tags),
    call(BestPracticeRepository, "find_similar", searched, top_k=st.integers(1, 6)),
    *calls_of(
        CostRepository,
        "cst",
        costs,
        changes(cost=cents, provider=st.sampled_from(WORDS)),
        listing("cst", provider=text_filters, cost=number_filters),
    ),
    call(
        CostRepository,
        "get_report",
        st.sampled_from(["daily", "monthly", "yearly"]),
        st.sampled_from(DAYS),
    ),
    call(MemoryRepository, "set", keys, json_values, session_id=sessions, scope=words),
    call(MemoryRepository, "set", keys, json_values, session_id=sessions),
    call(MemoryRepository, "get", keys, session_id=sessions, scope=words),
    call(MemoryRepository, "get", keys, session_id=sessions),
    call(MemoryRepository, "delete", keys, session_id=sessions),
    call(MemoryRepository, "list", session_id=sessions, scope=maybe, limit=st.integers(1, 4)),
    call(MemoryRepository, "count", session_id=sessions, scope=maybe),
    call(MemoryRepository, "clear", session_id=sessions, scope=st.sampled_from(["session", None])),
    call(MemoryRepository, "purge"),
)


def _stored(
    repository: type[Any], records: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[Call]]:
    """Return calls that add a few records of a kind, each with an id of its own."""
    few = st.lists(records, min_size=2, max_size=5, unique_by=lambda record: str(record.id))
    return few.map(lambda chosen: [Call(repository, "add", (record,)) for record in chosen])


sequences = st.tuples(
    _stored(GenerationRepository, plain_generations),
    _stored(GenerationRepository, generations),
    _stored(FeedbackRepository, feedback),
    _stored(FeedbackRepository, feedback),
    _stored(TemplateRepository, templates),
    _stored(BestPracticeRepository, practices),
    _stored(CostRepository, costs),
    st.lists(all_calls, min_size=15, max_size=50),
).map(lambda parts: [step for part in parts for step in part])
"""First something of each kind, so that the calls after it have something to find."""
