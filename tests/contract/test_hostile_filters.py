"""Whatever stands in a filter: it is refused, or it is data. Never SQL, never another error."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
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
    InvalidValueError,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.schema import TABLES
from paracle_meta.testing.filters import meets

Pair = tuple[MetaDatabase, MetaDatabase]

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYMBOLS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in")

SQL = (
    "1=1",
    "' OR '1'='1",
    "'; DROP TABLE generations; --",
    '"; DELETE FROM templates; --',
    "name) OR (1=1",
    "id IS NOT NULL OR name",
    "CAST(name AS INTEGER)",
    "(SELECT name FROM generations LIMIT 1)",
    "name--",
    "name/**/",
    "\\'; --",
    "$1",
    "?1",
    ":id",
    "%s",
    "{name}",
    "pg_sleep(5)",
    "randomblob(999999999)",
    "load_extension('x')",
    "\u02bc; DROP TABLE costs; --",
)
NAMES = tuple(sorted({column.name for table in TABLES for column in table.columns}))

texts = st.one_of(
    st.sampled_from(SQL),
    st.sampled_from(NAMES),
    st.builds("".join, st.lists(st.sampled_from([*SQL, *NAMES, " ", "\0", "\ud800"]), max_size=3)),
    st.text(st.characters(), max_size=20),
)
scalars = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.binary(max_size=8),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.sampled_from([MOMENT, date(2026, 3, 1), "agent", 8, 7.5]),
    st.builds(object),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts, inner, max_size=2),
    ),
    max_leaves=6,
)
columns = st.one_of(texts, st.none(), st.integers(), st.binary(max_size=4), st.tuples(texts))
operators = st.one_of(
    st.sampled_from(SYMBOLS), texts, texts.map("${}".format), st.none(), st.integers()
)
conditions = st.one_of(values, st.dictionaries(operators, values, min_size=1, max_size=2))
filters = st.one_of(st.dictionaries(columns, conditions, min_size=1, max_size=2), values)


async def store_one_of_each(database: MetaDatabase) -> dict[str, Any]:
    """Store a record of each kind and return it by the name of its table."""
    generation = GenerationResult(
        id="gen-1", artifact_type="agent", name="n", content="c", quality_score=7.5, tokens_used=8
    )
    template = Template(id="tpl-1", artifact_type="agent", name="n", content="c")
    feedback = Feedback(id="fbk-1", generation_id="gen-1", rating=4)
    cost = CostRecord(id="cst-1", provider="p", model="m", period_start=date(2026, 3, 1))
    practice = BestPractice(id="bpr-1", category="c", title="t", content="c")
    return {
        "generations": await GenerationRepository(database).add(generation),
        "templates": await TemplateRepository(database).add(template),
        "feedback": await FeedbackRepository(database).add(feedback),
        "costs": await CostRepository(database).add(cost),
        "memory": await MemoryRepository(database).set("key", 1),
        "best_practices": await BestPracticeRepository(database).add(practice),
    }


def repositories(database: MetaDatabase) -> dict[str, Any]:
    kinds = (
        GenerationRepository,
        TemplateRepository,
        FeedbackRepository,
        CostRepository,
        MemoryRepository,
        BestPracticeRepository,
    )
    return {kind.table.name: kind(database) for kind in kinds}


def finds(record: Any, wanted: Any) -> bool:
    """Say whether a filter that was taken should find the record, in plain Python."""
    for name, condition in (wanted or {}).items():
        stored = getattr(record, name)
        tests = condition if isinstance(condition, dict) else {"$eq": condition}
        if not all(meets(stored, symbol, value) for symbol, value in tests.items()):
            return False
    return True


@settings(max_examples=400)
@given(wanted=filters, table=st.sampled_from([table.name for table in TABLES]))
@example(wanted={"name": {"$gt": "m"}}, table="generations")
@example(wanted={"quality_score": {"$lt": 10**30}}, table="generations")
@example(wanted={"tokens_used": {"$in": [2**63 - 1, None]}}, table="generations")
async def test_a_hostile_filter_is_refused_or_is_only_data(
    pair: Pair, wanted: Any, table: str
) -> None:
    for database in pair:
        stored = await store_one_of_each(database)
        repository = repositories(database)[table]
        try:
            found = await repository.list(filters=wanted)
        except InvalidValueError:
            with pytest.raises(InvalidValueError):
                await repository.count(filters=wanted)
            if table in {"templates", "best_practices"}:
                with pytest.raises(InvalidValueError):
                    await database.vector_search(table, "c", filters=wanted)
        else:
            expected = [stored[table]] if finds(stored[table], wanted) else []
            assert [record.id for record in found] == [record.id for record in expected]
            assert await repository.count(filters=wanted) == len(expected)
            if table in {"templates", "best_practices"}:
                matches = await database.vector_search(table, "c", filters=wanted)
                assert [match.id for match in matches] == [record.id for record in expected]
        # Nothing that stood in the filter was run: each record is still there, and unchanged.
        for name, other in repositories(database).items():
            (kept,) = await other.list()
            assert kept.id == stored[name].id


@settings(max_examples=150)
@given(text=texts)
async def test_hostile_text_as_any_other_argument(pair: Pair, text: str) -> None:
    for database in pair:
        await store_one_of_each(database)
        every = repositories(database)
        calls = (
            every["generations"].list(artifact_type=text, provider=text, model=text),
            every["generations"].get(text),
            every["templates"].list(source=text),
            every["best_practices"].list(tags=[text], category=text),
            every["memory"].get(text, session_id=text, scope=text),
            every["memory"].clear(session_id=text),
            every["feedback"].get_for_generation(text),
            database.vector_search("templates", "c", filters={"id": text}),
        )
        for call in calls:
            try:
                answer = await call
            except InvalidValueError:
                continue
            assert answer in ([], None, 0)
        for repository in every.values():
            assert await repository.count() == 1
