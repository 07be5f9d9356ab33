from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_meta.backends.fusion import fuse

if TYPE_CHECKING:
    from collections.abc import Mapping

SCORES = st.dictionaries(st.text("abcdef", min_size=1), st.floats(0, 50), max_size=20)


def ids(ranked: list[tuple[str, float]]) -> list[str]:
    return [record_id for record_id, _ in ranked]


def test_the_score_is_the_sum_of_two_standard_scores() -> None:
    ranked = dict(fuse({"a": 4.0, "b": 2.0}, {"a": 0.2, "b": 0.4, "c": 0.9}))
    # BM25: mean 2, deviation sqrt(8/3). Cosine: mean .5, deviation sqrt(.26/3).
    words, meanings = math.sqrt(8 / 3), math.sqrt(0.26 / 3)
    assert ranked["a"] == pytest.approx(2 / words - 0.3 / meanings)
    assert ranked["b"] == pytest.approx(-0.1 / meanings)
    assert ranked["c"] == pytest.approx(-2 / words + 0.4 / meanings)


def test_whoever_leads_in_both_is_first() -> None:
    assert ids(fuse({"a": 9.0, "b": 8.0}, {"a": 0.9, "b": 0.1, "c": 0.8}))[0] == "a"


def test_without_any_words_in_common_the_vectors_decide() -> None:
    assert ids(fuse({}, {"a": 0.1, "b": 0.9, "c": 0.5})) == ["b", "c", "a"]


def test_without_any_vectors_the_words_decide() -> None:
    assert ids(fuse({"a": 1.0, "b": 3.0}, {"a": None, "b": None})) == ["b", "a"]
    assert ids(fuse({"a": 1.0, "b": 3.0}, {})) == ["b", "a"]


def test_one_without_a_vector_counts_as_the_least_similar() -> None:
    with_none = fuse({"a": 5.0, "b": 1.0}, {"a": None, "b": 0.7, "c": 0.2})
    with_least = fuse({"a": 5.0, "b": 1.0}, {"a": 0.2, "b": 0.7, "c": 0.2})
    assert with_none == with_least
    assert fuse({"a": 5.0, "b": 1.0}, {"b": 0.7, "c": 0.2}) == with_none


def test_ties_are_broken_by_id() -> None:
    assert ids(fuse({}, {"b": 0.5, "c": 0.5, "a": 0.5})) == ["a", "b", "c"]


def test_no_candidates() -> None:
    assert fuse({}, {}) == []


def test_scores_that_differ_by_rounding_alone_count_as_equal() -> None:
    ranked = fuse({"a": 1.0, "b": 1.0 + 1e-15}, {"a": 0.9, "b": 0.1})
    assert ids(ranked) == ["a", "b"]


@given(SCORES, SCORES, st.randoms())
def test_the_order_in_which_candidates_come_changes_nothing(
    text: Mapping[str, float], cosine: Mapping[str, float], random: object
) -> None:
    def shuffled(scores: Mapping[str, float]) -> dict[str, float]:
        items = list(scores.items())
        random.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    # To the last bit: the two databases list candidates in orders of their own.
    assert fuse(shuffled(text), shuffled(cosine)) == fuse(text, cosine)
