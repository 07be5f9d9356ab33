"""Real texts are found by what people would ask for them, on both databases alike.

`benchmarks.retrieval` asks for ten times as many texts, with another model besides.
"""

from __future__ import annotations

import asyncio
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from benchmarks.retrieval import MODES, read_queries, read_templates, reciprocal_ranks
from paracle_meta import DatabaseSettings, MetaDatabase, TemplateRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.retrieval import Query
    from paracle_meta.records import SearchMode
    from tests.postgres import PostgresServer

    Answers = Mapping[SearchMode, Sequence[Sequence[str]]]
    """For each mode what was found for each query, best first."""

TEXTS = 2_000
# Every second one: enough that one query more or less does not decide, and asked in seconds.
QUERIES = read_queries()[::2]
DATABASES = ("sqlite", "postgresql")

FLOORS: Mapping[SearchMode, float] = {"text": 0.68, "vector": 0.63, "hybrid": 0.69}
"""What MRR@10 is at least: .02 below what was measured, .699, .647 and .710 on both databases.

A wrong weight of words or a wrong sum of vectors costs more, another version of a library less.
"""


async def ask(settings: DatabaseSettings) -> Answers:
    wanted = {query.id for query in QUERIES}
    templates = sorted(read_templates(), key=lambda template: template.id not in wanted)[:TEXTS]
    async with MetaDatabase(settings) as database:
        await TemplateRepository(database).add_many(templates)
        return {mode: [await found(database, query, mode) for query in QUERIES] for mode in MODES}


async def found(database: MetaDatabase, query: Query, mode: SearchMode) -> list[str]:
    matches = await database.vector_search("templates", query.query, mode=mode)
    return [match.id for match in matches]


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, postgres18: PostgresServer
) -> Mapping[str, Answers]:
    """What each database answers; asked once for all tests, as filling one takes seconds."""
    settings = {
        "sqlite": DatabaseSettings(sqlite_dir=tmp_path_factory.mktemp("texts")),
        "postgresql": DatabaseSettings(
            postgres_url=postgres18.url_of(postgres18.create_database())
        ),
    }
    return {name: asyncio.run(ask(settings[name])) for name in DATABASES}


def mrr(answers: Answers, mode: SearchMode) -> float:
    return fmean(reciprocal_ranks(QUERIES, answers[mode]))


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("mode", MODES)
def test_what_was_asked_for_is_found(
    answers: Mapping[str, Answers], database: str, mode: SearchMode
) -> None:
    assert mrr(answers[database], mode) >= FLOORS[mode]


@pytest.mark.parametrize("database", DATABASES)
def test_hybrid_is_better_than_either_of_its_parts(
    answers: Mapping[str, Answers], database: str
) -> None:
    hybrid = mrr(answers[database], "hybrid")
    assert hybrid > mrr(answers[database], "text")
    assert hybrid > mrr(answers[database], "vector")


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_a_name_finds_what_is_called_so_first(
    answers: Mapping[str, Answers], database: str, mode: SearchMode
) -> None:
    first = {
        query.query: answer[:1]
        for query, answer in zip(QUERIES, answers[database][mode], strict=True)
        if query.kind == "name"
    }
    assert len(first) >= 90
    # The id of each of these texts is its name.
    assert first == {name: [name] for name in first}


def test_both_databases_find_the_same_words(answers: Mapping[str, Answers]) -> None:
    assert answers["sqlite"]["text"] == answers["postgresql"]["text"]


@pytest.mark.parametrize(("mode", "apart"), [("vector", 0.01), ("hybrid", 0.03)])
def test_both_databases_find_meanings_alike(
    answers: Mapping[str, Answers], mode: SearchMode, apart: float
) -> None:
    # Not the same to the last: the index of PostgreSQL misses a near vector now and then.
    assert mrr(answers["sqlite"], mode) == pytest.approx(
        mrr(answers["postgresql"], mode), abs=apart
    )
