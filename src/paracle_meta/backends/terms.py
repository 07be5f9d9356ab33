"""The terms by which a text is found, made in Python so that they are the same on every database.

SQLite's and PostgreSQL's own tokenizers differ in what a word is, and neither finds both
``pytest-xdist`` and ``pytestxdist``; here the databases only store terms and find them. A term is
made of letters and digits alone, whatever the text, with at most a leading underscore, so that
none can break the syntax of a query.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from paracle_meta.schema import Table

INDEXED_BYTES: Final = 256 * 1024
"""How much of a text is searched, before and after it was made uniform.

Its terms are below three times as long (each word, its first letters, and its share of a compound),
which fits the 1 MB of a tsvector of PostgreSQL.
"""

STOP_WORDS: Final = frozenset(
    """
    a an and are as at be but by for if in into is it no not of on or such that the their then
    there these they this to was will with
    """.split()  # noqa: SIM905 - a list of quoted words is no better to read
)
"""Words that say little, from Lucene's StandardAnalyzer; a query of nothing else keeps them."""

PREFIX: Final = 4
"""Letters of the truncated word that is a term beside the word: ``_conv`` for ``conversion``.

Words cut to their first letters find one another as a stemmer's do, in any language (McNamee and
Mayfield, "Character N-Gram Tokenization for European Language Text Retrieval", 2004); as the whole
word is a term too, the exact form is still found before the others.
"""

MAX_TERM: Final = 64
"""Longest term in characters: a lexeme of PostgreSQL holds 2,046 bytes."""

MAX_QUERY_TERMS: Final = 128
"""Terms of a query that count, the first ones; each costs a look-up."""

LEVELS: Final = (1, 2, 4, 8)
"""Frequencies that are told apart, powers of two; others are rounded down.

BM25 saturates, so that finer ones change little, and PostgreSQL can keep one as a lexeme.
"""

SCORE_STEPS: Final = 1e12
"""Scores are rounded to one part in so many of 1.

The databases add up in different orders: what differs by that alone is a tie on both.
"""

_COMPOUND: Final = re.compile(rf"[^\W_]+(?:[-_./@+:]+[^\W_]+){{0,{MAX_TERM - 1}}}")
"""Words and what code joins them with: pytest-xdist, scikit_learn, os.path, std::vector.

Of MAX_TERM words at most, as no more fit a term: what is done in one go stays short.
"""

_WORD: Final = re.compile(r"[^\W_]+")

_FIRST_MARK: Final = "\N{COMBINING GRAVE ACCENT}"
"""No character before it is a mark, which is told more quickly than by its category."""


def document_terms(text: str) -> dict[str, int]:
    """Return each term of a text with the level of its frequency, one of LEVELS.

    The sum of the levels is the length of the text.
    """
    return {
        term: min(1 << (count.bit_length() - 1), LEVELS[-1])
        for term, count in Counter(_terms(text)).items()
    }


def query_terms(text: str) -> list[str]:
    """Return the distinct terms of a query in their order, at most MAX_QUERY_TERMS."""
    telling: dict[str, None] = {}
    stop_words: dict[str, None] = {}
    for term in _terms(text):
        (stop_words if term in STOP_WORDS else telling)[term] = None
        if len(telling) == MAX_QUERY_TERMS:
            break
    return list(telling or stop_words)


def searched_text(table: Table[Any], values: Mapping[str, Any]) -> str:
    """Return the text of a record that is searched: that of the table's `searched` columns.

    Args:
        table: A collection.
        values: The record by column; labels as a list; what is missing is left out.
    """
    parts = []
    for name in table.searched:
        value = values[name]
        if value is not None:
            parts.append(value if isinstance(value, str) else "\n".join(value))
    return "\n".join(parts)


def _terms(text: str) -> Iterator[str]:
    """Yield the terms of a text, as often as each occurs.

    A generator over `finditer`, as `findall` on a long text would not let other threads run.
    """
    for match in _COMPOUND.finditer(_folded(text)):
        compound = match[0]
        words = [compound] if compound.isalnum() else _WORD.findall(compound)
        if len(words) > 1:
            yield "".join(words)[:MAX_TERM]
        for long_word in words:
            word = long_word[:MAX_TERM]
            yield word
            if word not in STOP_WORDS:
                yield f"_{word[:PREFIX]}"


def _folded(text: str) -> str:
    """Return the searched part of a text without accents, variants of width and case."""
    folded = _cut(text)
    if not folded.isascii():
        # What one character stands for may be as long as a sentence, hence cut before and after.
        plain = unicodedata.normalize("NFKD", folded)[:INDEXED_BYTES]
        bare = "".join(c for c in plain if c < _FIRST_MARK or unicodedata.category(c)[0] != "M")
        # A Korean syllable is one letter again.
        folded = unicodedata.normalize("NFC", bare)
    return _cut(folded.casefold())


def _cut(text: str) -> str:
    return text.encode()[:INDEXED_BYTES].decode(errors="ignore")
