"""Texts and queries for the contracts of searching by words: prose, code, other scripts, syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paracle_meta.testing.base import at, template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paracle_meta import Template, TemplateMatch

TEXTS = (
    ("pytest-xdist", "Runs pytest tests on several processors at once"),
    ("pytest", "Runs small readable tests, and scales to complex ones"),
    ("xdist helper", "Distributes files to hosts"),
    ("OAuth2 proxy", "Signs users in through OAuth2 providers before a web page is shown"),
    ("OAuth client", "Asks for tokens and renews them"),
    ("scikit-learn", "Machine learning in Python: classification, regression, clustering"),
    ("scikit-image", "Image processing in Python"),
    ("learning planner", "Plans what to learn next"),
    ("std::vector lint", "Checks C++ code that grows a std::vector in a loop"),
    ("numpy.linalg notes", "Which functions of numpy.linalg raise LinAlgError"),
    ("HTTP/2 checker", "Checks a server for HTTP/2 and TLS 1.3"),
    ("http client", "Sends requests and follows redirects"),
    ("Converter", "Converts documents between Markdown and HTML"),
    ("Conversion log", "Keeps a log of every conversion of documents"),
    ("Security reviewer", "Reviews code for vulnerabilities such as injection"),
    ("Security audit", "Audits the security of a server, and audits it again"),
    ("Release notes", "Writes release notes from merged pull requests"),
    ("Incident triage", "Leads through an outage from the first alert to the report"),
    ("Café menu", "Übersetzt Speisekarten: crème brûlée, jalapeño"),
    ("Straße map", "Finds a street by name, also STRASSE in capitals"),
    ("日本語 tutor", "Teaches 日本語 to beginners"),
    ("Русский tutor", "Teaches русский to beginners"),
    ("To be or not to be", "A question"),
    ("Poet", "Writes sonnets about the sea"),
    ("Gardener", "Says when to water plants"),
    ("SQL helper", "Explains a query plan and proposes an index"),
    ("Log reader", "Reads a log and reports errors, errors, errors, errors"),
    ("Error reader", "Reads one error"),
    ("snake_case renamer", "Renames camelCase to snake_case"),
    ("Empty handed", "..."),
)
"""Names and patterns of templates: words of prose, of code, of other languages and scripts."""

BY_WORDS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("pytest-xdist", (0, 2, 1)),
    ("pytest", (0, 1)),
    ("run tests", (1, 0)),
    ("OAuth", (4, 3)),
    ("OAuth2 sign in", (3, 4)),
    ("machine learning", (5, 7)),
    ("learn", (7, 5)),
    ("image processing python", (6, 5, 0)),
    ("std::vector", (8,)),
    ("checks", (10, 8)),
    ("convert markdown documents", (12, 13)),
    ("conversion", (13, 12)),
    ("security audit", (15, 14)),
    ("http", (10, 11)),
    ("HTTP/2", (10, 2, 11)),
    ("write release notes", (16, 9, 23)),
    ("creme brulee", (18,)),
    ("strasse", (19,)),
    ("日本語", (20,)),
    ("русский tutor", (21, 20)),
    ("to be or not to be", (22, 2, 20, 21, 24)),
    ("the sea", (23,)),
    ("log errors", (26, 13, 27)),
    ("snake_case", (28,)),
    ("numpy linalg error", (9, 27, 26)),
    ("query index", (25,)),
    ("helper", (2, 25)),
    ("vulnerability review", (14,)),
)
"""Queries, and the five of TEXTS that a search by words finds first, or all where it is fewer."""

BY_BOTH: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("pytest xdist", (0, 2, 1, 18, 15)),
    ("OAuth2", (3, 4, 27, 10, 8)),
    ("security audit agent", (15, 14, 17, 9, 8)),
    ("machine learning in python", (5, 6, 7, 4, 18)),
    ("convert documents", (12, 13, 18, 26, 5)),
    ("write a poem", (23, 16, 29, 18, 8)),
    ("report an outage", (17, 6, 16, 1, 18)),
    ("log of errors", (26, 27, 13, 0, 3)),
    ("checks a server", (10, 15, 8, 13, 11)),
    ("learn japanese", (5, 7, 18, 4, 1)),
    ("street names", (19, 26, 12, 0, 23)),
    ("???", (28, 20, 27, 10, 21)),
)
"""The same for a search by both, with `FakeEmbeddings`."""

HOSTILE = (
    '"', "'", "''", '"pytest', "pytest\"", "'pytest'", "\\", "\\'", "pytest AND xdist", "AND", "OR",
    "NOT", "NEAR", "NEAR(pytest xdist, 3)", "pytest NOT xdist", "pytest*", "*", "^pytest",
    "name: pytest", "{name pattern}: pytest", "-pytest", "+pytest", "(", ")", "((", "pytest)", ":*",
    "pytest:*", "pytest:A", "!", "!pytest", "&", "|", "pytest & xdist", "<->", "pytest <-> xdist",
    "<2>", "$1", "?1", ":id", "@id", "%s", "%", "_", "__", "_pyte", "pytest_2", "{}", "[]", "--",
    "; DROP TABLE templates; --", "'; DROP TABLE templates; --", "') OR ('1'='1", "/*", "*/",
    "1 = 1", "NULL", "true", "\x01", "\x1f\x7f", "\u200b", "\u200bpytest", "\ufeff", "\u2028",
    "ﬁ", "İ", "ß", "\u0301", "e\u0301", "😀", "\U0010ffff", "日本語", "١٢٣", "²", "Ⅷ", "a" * 5_000,
    "pytest " * 5_000, " ".join(f"w{n}" for n in range(3_000)), "'" * 5_000, "\t\n pytest \r\n",
)  # fmt: skip
"""Queries that are syntax somewhere, or text that is easily mistaken."""


def some_templates() -> list[Template]:
    """Return a template for each of TEXTS."""
    return [
        template(f"tpl-{n:02}", name=name, pattern=pattern, content=f"Text {n}.", created_at=at(n))
        for n, (name, pattern) in enumerate(TEXTS)
    ]


def names(matches: Sequence[TemplateMatch]) -> list[str]:
    """Return the names of matches, in their order."""
    return [match.name for match in matches]
