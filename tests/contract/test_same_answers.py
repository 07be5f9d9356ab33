"""Random sequences of calls on SQLite and PostgreSQL at once: every answer is the same."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings

from paracle_meta import (
    CostReport,
    MemoryItem,
    MetaDatabase,
    ParacleMetaError,
    Promotion,
    Template,
)
from paracle_meta.schema import TABLES
from tests.contract.calls import Call, sequences
from tests.contract.hypothesis_profile import delete_everything

TOLERANCE = 1e-5
"""How far the similarities of the two may be apart."""


async def answer(database: MetaDatabase, call: Call) -> Any:
    """Return what a call returned, or the type of error that it raised."""
    try:
        return await call.run(database)
    except ParacleMetaError as error:
        return type(error)


def without_the_clock(value: Any) -> Any:
    """Return an answer in a form that compares exactly, without what the clock or chance made."""
    match value:
        case MemoryItem():
            return (value.key, value.session_id, value.scope, json.dumps(value.value), value.scope)
        case Promotion():
            template = without_the_clock(value.template)
            return (value.generation_id, value.reason, value.created, template)
        case CostReport():
            # With the order of its lines.
            return [(name, str(line)) for name, line in asdict(value).items()]
        case list() | tuple():
            return [without_the_clock(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            fields = asdict(value)
            del fields["updated_at"]
            if isinstance(value, Template) and (value.source or "").startswith("generation:"):
                del fields["created_at"]
            # 1, 1.0 and True are equal, and not the same. The keys of JSON have no order.
            return {
                name: json.dumps(field, sort_keys=True) if isinstance(field, dict) else repr(field)
                for name, field in fields.items()
            }
        case _:
            return value


def assert_same(one: Any, other: Any, call: Call) -> None:
    if call.method != "find_similar" or isinstance(one, type) or isinstance(other, type):
        assert without_the_clock(one) == without_the_clock(other), call
        return
    similarities = [match.similarity for match in one]
    assert [match.similarity for match in other] == pytest.approx(similarities, abs=TOLERANCE)
    if all(a == b or a - b > TOLERANCE for a, b in pairwise(similarities)):
        # No two are so near that rounding decides, unless they are equal and the id does.
        assert [match.id for match in one] == [match.id for match in other]


async def everything(database: MetaDatabase) -> dict[str, int]:
    counts = (await database.status()).counts
    return {table.name: counts[table.name] for table in TABLES}


# Making a long failing sequence short takes hypothesis up to five minutes.
@pytest.mark.timeout(600)
@settings(max_examples=60)
@given(calls=sequences)
async def test_both_databases_give_the_same_answers(
    pair: tuple[MetaDatabase, MetaDatabase], calls: list[Call]
) -> None:
    await delete_everything(*pair)
    one, other = pair
    for call in calls:
        assert_same(await answer(one, call), await answer(other, call), call)
    assert await everything(one) == await everything(other)
