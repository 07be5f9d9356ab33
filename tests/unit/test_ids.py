from __future__ import annotations

import re
import time

import pytest

from paracle_meta.ids import new_id

MANY = 10_000


@pytest.mark.parametrize("prefix", ["gen", "tpl", "fbk", "cst", "mem", "bpr"])
def test_an_id_is_its_prefix_and_a_uuid_of_version_7(prefix: str) -> None:
    assert re.fullmatch(
        rf"{prefix}-[0-9a-f]{{12}}7[0-9a-f]{{3}}[89ab][0-9a-f]{{15}}", new_id(prefix)
    )


def test_ids_differ_also_where_they_are_made_in_the_same_moment() -> None:
    assert len({new_id("gen") for _ in range(MANY)}) == MANY


def test_later_ids_sort_later() -> None:
    # A quarter of a microsecond is the finest difference that an id shows.
    ids = []
    for _ in range(100):
        ids.append(new_id("gen"))
        end = time.time_ns() + 2_000
        while time.time_ns() < end:
            pass
    assert ids == sorted(ids)


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = int(new_id("gen")[4:16], 16)
    assert before <= made <= time.time_ns() // 1_000_000
