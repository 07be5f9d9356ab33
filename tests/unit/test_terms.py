from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_meta.backends.terms import (
    INDEXED_BYTES,
    LEVELS,
    MAX_QUERY_TERMS,
    MAX_TERM,
    document_terms,
    query_terms,
    searched_text,
)
from paracle_meta.schema import BEST_PRACTICES, TEMPLATES


def found_by(query: str, document: str) -> bool:
    return bool(set(query_terms(query)) & document_terms(document).keys())


def test_a_word_is_a_term_beside_its_first_letters() -> None:
    assert document_terms("conversion") == {"conversion": 1, "_conv": 1}


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("pytest-xdist", "pytest-xdist: run tests on many cores"),
        ("pytestxdist", "pytest-xdist: run tests on many cores"),
        ("pytest_xdist", "pytest-xdist: run tests on many cores"),
        ("xdist", "pytest-xdist: run tests on many cores"),
        ("OAuth", "Login by OAuth2"),
        ("oauth2", "Login by OAuth2"),
        ("C++", "Bindings for C++"),
        ("std::vector", "uses std::vector"),
        ("os.path", "a better os.path"),
        ("user@example.org", "write to user@example.org"),
        ("convert", "conversion of files"),
        ("Zurich", "Zürich"),
        ("ZÜRICH", "zürich"),
        ("strasse", "Straße"),
        ("file", "ﬁle"),
        ("２０２６", "2026"),  # noqa: RUF001 - digits of full width
        ("हिन्दी", "किताब हिन्दी में"),
        ("日本語", "日本語"),
        ("데이터베이스를", "데이터베이스"),
        ("the", "the"),
    ],
)
def test_code_like_words_and_words_of_any_language_are_found(query: str, document: str) -> None:
    assert found_by(query, document)


def test_the_exact_identifier_has_a_term_that_its_parts_do_not_have() -> None:
    assert set(query_terms("pytest-xdist")) - document_terms("xdist for pytest").keys() == {
        "pytestxdist"
    }


@pytest.mark.parametrize(
    ("occurrences", "level"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (5_000, 8)]
)
def test_frequencies_are_rounded_down_to_a_level(occurrences: int, level: int) -> None:
    assert document_terms("word " * occurrences) == {"word": level, "_word": level}


def test_a_query_leaves_out_stop_words_unless_it_has_nothing_else() -> None:
    assert query_terms("the cat and the hat") == ["cat", "_cat", "hat", "_hat"]
    assert query_terms("to be or not to be") == ["to", "be", "or", "not"]
    assert document_terms("the the") == {"the": 2}


def test_a_query_keeps_so_many_of_its_first_terms() -> None:
    terms = query_terms(" ".join(f"w{number}" for number in range(1_000)))
    assert len(terms) == MAX_QUERY_TERMS
    assert terms[0] == "w0"


@pytest.mark.parametrize("text", ["", " \n\t", "!?-+()[]{}", "___", "\x00", "́"])
def test_what_has_no_word_has_no_terms(text: str) -> None:
    assert document_terms(text) == {}
    assert query_terms(text) == []


def test_a_text_counts_up_to_so_many_bytes() -> None:
    filler = "x " * (INDEXED_BYTES // 2 - 3)
    assert "inside" in document_terms(f"{filler}inside")
    assert "outside" not in document_terms(f"{filler}      outside")
    # A character that the end falls into is left out.
    assert document_terms("ü" * INDEXED_BYTES) == document_terms("ü" * (INDEXED_BYTES // 2))


@pytest.mark.parametrize(
    "text",
    [
        # Each word another one: hyphenated, of long letters, and of signs that stand for words.
        "".join(f"{n:04x}-{n + 7:04x} " for n in range(60_000)),
        " ".join(chr(0xAC00 + n % 11_000) + chr(0xAC00 + n // 11_000) * 2 for n in range(60_000)),
        " ".join(chr(0x3300 + n % 88) + chr(0x3300 + n // 88 % 88) for n in range(60_000)),
        "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 90_000,
    ],
)
def test_the_terms_of_any_text_fit_a_tsvector(text: str) -> None:
    terms = document_terms(text)
    lexemes = sum(len(f"{term}_8".encode()) * (1 + LEVELS.index(n)) for term, n in terms.items())
    assert lexemes < 2**20


@given(st.text())
def test_terms_are_letters_and_digits_of_bounded_length(text: str) -> None:
    for term in [*document_terms(text), *query_terms(text)]:
        assert re.fullmatch(r"_?[^\W_]+", term)
        assert len(term) <= MAX_TERM
        assert term == term.casefold()


@given(st.text())
def test_each_term_of_a_text_as_query_is_a_term_of_it_as_document(text: str) -> None:
    terms = document_terms(text)
    assert set(query_terms(text)) <= terms.keys()
    assert set(terms.values()) <= set(LEVELS)


def test_the_searched_text_leaves_out_what_is_missing() -> None:
    row = {"name": "n", "pattern": None, "content": "c", "source": "not searched"}
    assert searched_text(TEMPLATES, row) == "n\nc"
    practice = {"title": "t", "content": "c", "tags": ["a b", "c"]}
    assert searched_text(BEST_PRACTICES, practice) == "t\nc\na b\nc"
    assert searched_text(BEST_PRACTICES, {**practice, "tags": []}) == "t\nc\n"


def test_words_of_two_columns_do_not_run_together() -> None:
    row = {"name": "py", "pattern": None, "content": "test"}
    assert "pytest" not in document_terms(searched_text(TEMPLATES, row))
