"""Whatever is stored or searched for: no syntax of either engine breaks, and the two agree."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paracle_meta import MetaDatabase, Template, TemplateRepository
from paracle_meta.testing.base import ids
from paracle_meta.testing.texts import HOSTILE, some_templates
from tests.contract.hypothesis_profile import delete_everything

Pair = tuple[MetaDatabase, MetaDatabase]

WORDS = ("pytest", "xdist", "OAuth2", "log", "errors", "the", "ß", "日本語", "İ", "é", "²", "_")
JOINTS = (
    " ",
    "-",
    "_",
    ".",
    "/",
    "::",
    "@",
    "+",
    "'",
    '"',
    "\\",
    "*",
    "(",
    ")",
    ":",
    "&",
    "|",
    "!",
)

spelled = st.lists(st.sampled_from([*WORDS, *JOINTS]), max_size=12).map("".join)
storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
texts = st.one_of(spelled, storable, st.sampled_from(HOSTILE))


async def agree(pair: Pair, query: str) -> list[str]:
    """Hold the two to the same records in the same order, and return these."""
    one, other = [
        await database.vector_search("templates", query, 20, mode="text") for database in pair
    ]
    assert ids(one) == ids(other)
    assert [m.score for m in one] == pytest.approx([m.score for m in other], rel=1e-6)
    return ids(one)


@pytest.fixture
async def filled(pair: Pair) -> Pair:
    await delete_everything(*pair)
    for database in pair:
        templates = TemplateRepository(database)
        await templates.add_many(some_templates())
        await templates.add_many(
            Template(id=f"h-{n:03}", artifact_type="agent", name=f"x{text}", content=f"{text}x")
            for n, text in enumerate(HOSTILE)
        )
    return pair


@settings(max_examples=200)
@given(query=texts)
@example(query="pytest-xdist")
async def test_any_query_is_answered_alike(filled: Pair, query: str) -> None:
    if not query.strip():
        return
    await agree(filled, query)


@settings(max_examples=100)
@given(stored=st.lists(texts, min_size=1, max_size=6), query=texts)
async def test_any_text_is_stored_and_searched_alike(
    pair: Pair, stored: list[str], query: str
) -> None:
    await delete_everything(*pair)
    templates = [
        Template(id=f"t-{n}", artifact_type="agent", name=f"x{text}", content=f"{text} pytest")
        for n, text in enumerate(stored)
    ]
    for database in pair:
        await TemplateRepository(database).add_many(templates)
    for each in ("pytest", f"x{query}", *stored):
        if each.strip():
            await agree(pair, each)
    assert len(await agree(pair, "pytest")) == len(stored)
