"""The contract of searching by words, and of what both modes that compare words have in common."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    ConfigurationError,
    InvalidValueError,
    MetaDatabase,
    TemplateMatch,
    TemplateRepository,
)
from paracle_meta.testing.base import Contract, OpenDatabase, at, ids, practice, template
from paracle_meta.testing.texts import BY_BOTH, BY_WORDS, HOSTILE, TEXTS, names, some_templates

if TYPE_CHECKING:
    from paracle_meta.records import SearchMode

MODES: tuple[SearchMode, ...] = ("text", "hybrid")
WITH_VECTORS: tuple[SearchMode, ...] = ("vector", "hybrid")

TOLERANCE = 1e-5
"""How far a score of one database may be from that of another."""


class TextSearchContract(Contract):
    """The modes ``text`` and ``hybrid`` of `vector_search` and of `find_similar`."""

    @pytest.fixture
    async def filled(self, templates: TemplateRepository) -> TemplateRepository:
        """The repository with a template for each of TEXTS."""
        await templates.add_many(some_templates())
        return templates

    async def test_exact_identifiers_are_found_first(self, filled: TemplateRepository) -> None:
        for query, name in (
            ("pytest-xdist", "pytest-xdist"),
            ("pytestxdist", "pytest-xdist"),
            ("PyTest_XDist", "pytest-xdist"),
            ("OAuth2", "OAuth2 proxy"),
            ("oauth2", "OAuth2 proxy"),
            ("scikit_learn", "scikit-learn"),
            ("std::vector", "std::vector lint"),
            ("HTTP/2", "HTTP/2 checker"),
            ("snake_case", "snake_case renamer"),
            ("cafe", "Café menu"),
            ("CRÈME", "Café menu"),
            ("strasse", "Straße map"),
            ("日本語", "日本語 tutor"),
            ("РУССКИЙ", "Русский tutor"),
        ):
            found = await filled.find_similar(query, 3, mode="text")
            assert names(found)[0] == name, query
        assert names(await filled.find_similar("OAuth", 2, mode="text")) == [
            "OAuth client",
            "OAuth2 proxy",
        ]
        assert "pytest-xdist" in names(await filled.find_similar("xdist", 2, mode="text"))
        assert names(await filled.find_similar("pytest-xdist", 1, mode="hybrid")) == [
            "pytest-xdist"
        ]

    async def test_every_database_gives_the_same_answers(self, filled: TemplateRepository) -> None:
        for query, expected in BY_WORDS:
            found = await filled.find_similar(query, 5, mode="text")
            assert [TEXTS[n][0] for n in expected] == names(found), query
        for query, expected in BY_BOTH:
            found = await filled.find_similar(query, 5, mode="hybrid")
            assert [TEXTS[n][0] for n in expected] == names(found), query

    async def test_scores_are_bm25(self, templates: TemplateRepository) -> None:
        await templates.add_many(
            [
                template("a", name="ab ab", pattern=None, content="cd"),
                template("b", name="ef", pattern=None, content="gh ij"),
                template("c", name="kl", pattern=None, content="gh"),
                template("d", name="kl", pattern=None, content="mn"),
            ]
        )
        # By hand: four texts whose lengths are 6, 6, 4 and 4 (a word and its first letters each,
        # ten occurrences of words in all). A word in one of four: ln(3.5 / 1.5).
        (match,) = await templates.find_similar("ef", mode="text")
        k = 1.2 * (0.25 + 0.75 * 6 / 5)
        idf = 0.847297860
        assert match.score == pytest.approx(2 * idf * 2.2 / (1 + k), abs=TOLERANCE)
        assert match.similarity is None
        # Twice in the text, and its first letters too.
        (match,) = await templates.find_similar("ab", mode="text")
        assert match.score == pytest.approx(2 * idf * 2 * 2.2 / (2 + k), abs=TOLERANCE)
        # In half of the texts or more a word tells next to nothing.
        found = await templates.find_similar("gh", mode="text")
        assert ids(found) == ["c", "b"]
        assert all(0 < match.score < TOLERANCE for match in found)

    async def test_a_match_is_the_stored_record(
        self, database: MetaDatabase, filled: TemplateRepository
    ) -> None:
        stored = {record.id: record for record in await filled.list()}
        for mode in MODES:
            found = await database.vector_search("templates", "security audit", 5, mode=mode)
            assert len(found) > 1
            for match in found:
                extra = {"similarity": match.similarity, "score": match.score}
                assert asdict(match) == {**asdict(stored[match.id]), **extra}
                assert type(match) is TemplateMatch
                assert type(match.score) is float
            scores = [match.score for match in found]
            assert scores == sorted(scores, reverse=True)

    async def test_a_query_without_a_word(self, filled: TemplateRepository) -> None:
        by_meaning = await filled.find_similar("???", 10)
        for query in ("???", "-- ;", "😀", "_"):
            assert await filled.find_similar(query, mode="text") == []
        assert ids(await filled.find_similar("???", 10, mode="hybrid")) == ids(by_meaning)

    async def test_stop_words_count_where_there_is_nothing_else(
        self, filled: TemplateRepository
    ) -> None:
        assert ids(await filled.find_similar("to be or not to be", 1, mode="text")) == ["tpl-22"]
        one = await filled.find_similar("poet", mode="text")
        assert await filled.find_similar("the poet", mode="text") == one

    async def test_ties_are_broken_by_id_bytewise(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        some = ["z", "a", "B", "ä", "Z", "b", "_"]
        await templates.add_many(template(each, created_at=at(n)) for n, each in enumerate(some))
        # One without the words, so that they are worth something.
        await templates.add_many(
            template(f"other-{n}", name="Poet", content="Sonnets") for n in range(20)
        )
        expected = sorted(some, key=str.encode)
        for mode in MODES:
            for top_k in (3, 7):
                found = await database.vector_search(
                    "templates", "security reviewer", top_k, mode=mode
                )
                assert ids(found) == expected[:top_k], mode

    async def test_top_k(self, filled: TemplateRepository) -> None:
        everything = await filled.find_similar("reads a log of errors", 10_000, mode="text")
        assert 3 < len(everything) < len(TEXTS)
        for top_k in (1, 3, len(everything)):
            found = await filled.find_similar("reads a log of errors", top_k, mode="text")
            assert found == everything[:top_k]
        by_both = await filled.find_similar("reads a log of errors", 10_000, mode="hybrid")
        assert len(by_both) == len(TEXTS)
        found = await filled.find_similar("reads a log of errors", 3, mode="hybrid")
        assert found == by_both[:3]

    async def test_filters_leave_as_many_as_there_are(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add_many(
            template(
                f"tpl-{n:03}",
                name=f"Security agent {n}",
                content="security " * (1 if n % 50 == 0 else 4),
                artifact_type="rare" if n % 50 == 0 else "agent",
                quality_score=None if n % 3 == 0 else n % 10,
                created_at=at(n),
            )
            for n in range(400)
        )
        # Others, so that the words are worth something.
        await templates.add_many(
            template(f"oth-{n:03}", name=f"Poet {n}", content="sonnets") for n in range(500)
        )
        rare = {f"tpl-{n:03}" for n in range(0, 400, 50)}
        unrated = {"tpl-000", "tpl-150", "tpl-300"}
        for mode in MODES:
            for filters, members in (
                ({"artifact_type": "rare"}, rare),
                ({"id": {"$in": ["tpl-007", "tpl-009", "x"]}}, {"tpl-007", "tpl-009"}),
                ({"artifact_type": "rare", "created_at": {"$lt": at(100)}}, {"tpl-000", "tpl-050"}),
                ({"artifact_type": "rare", "quality_score": 2}, set[str]()),
                ({"artifact_type": "rare", "quality_score": 0}, rare - unrated),
                ({"artifact_type": "rare", "quality_score": None}, unrated),
            ):
                found = await database.vector_search(
                    "templates", "security", 50, mode=mode, filters=filters
                )
                assert set(ids(found)) == members, (mode, filters)
                assert len(found) == len(members)
                few = await database.vector_search(
                    "templates", "security", 2, mode=mode, filters=filters
                )
                assert ids(few) == ids(found)[:2]
        found = await templates.find_similar("security", artifact_type="rare", mode="text")
        assert set(ids(found)) == rare
        # A score is that of the whole collection.
        everything = await templates.find_similar("security", 10_000, mode="text")
        scores = {match.id: match.score for match in everything}
        assert {match.id: match.score for match in found} == pytest.approx(
            {record_id: scores[record_id] for record_id in rare}
        )

    async def test_best_practices_by_title_content_and_tags(
        self, practices: BestPracticeRepository
    ) -> None:
        await practices.add_many(
            [
                practice(
                    "bpr-1", title="Cache on disk", content="...", tags=["lru-cache", "Speed"]
                ),
                practice("bpr-2", title="Keep secrets", content="out of prompts", tags=[]),
                practice("bpr-3", category="other", title="Log", content="to stderr"),
            ]
        )
        for query, expected in (
            ("lru-cache", ["bpr-1"]),
            ("speed", ["bpr-1"]),
            ("prompts", ["bpr-2"]),
            ("stderr", ["bpr-3"]),
            ("security", []),
        ):
            assert ids(await practices.find_similar(query, mode="text")) == expected, query
        assert await practices.find_similar("stderr", category="security", mode="text") == []
        assert ids(await practices.find_similar("secrets", 1, mode="hybrid")) == ["bpr-2"]
        await practices.update("bpr-2", tags=["vault"])
        assert ids(await practices.find_similar("vault", mode="text")) == ["bpr-2"]
        await practices.update("bpr-2", tags=[])
        assert await practices.find_similar("vault", mode="text") == []

    async def test_changes_are_found_and_deleted_records_are_not(
        self, templates: TemplateRepository
    ) -> None:
        async def found(query: str) -> list[str]:
            return ids(await templates.find_similar(query, mode="text"))

        await templates.add(template("tpl-1", name="alpha", content="beta"))
        await templates.add_many([template("tpl-2", name="gamma", content="beta")])
        assert await found("alpha") == ["tpl-1"]
        assert await found("beta") == ["tpl-1", "tpl-2"]
        await templates.update("tpl-2", name="delta", pattern="epsilon")
        assert (await found("gamma"), await found("epsilon")) == ([], ["tpl-2"])
        await templates.update("tpl-2", pattern=None)
        assert await found("epsilon") == []
        # The same record again, and a use of it, change nothing.
        await templates.add(template("tpl-1", name="alpha", content="beta"))
        await templates.record_use("tpl-1")
        await templates.update("tpl-1", quality_score=3)
        assert await found("alpha") == ["tpl-1"]
        await templates.delete("tpl-1")
        assert (await found("alpha"), await found("beta")) == ([], ["tpl-2"])
        await templates.add(template("tpl-1", name="zeta", content="beta"))
        assert (await found("alpha"), await found("zeta")) == ([], ["tpl-1"])
        assert ids(await templates.find_similar("zeta", 1, mode="hybrid")) == ["tpl-1"]

    async def test_what_plain_sql_writes_is_found(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add(template("tpl-1", name="alpha", content="beta"))
        insert = (
            "INSERT INTO templates (id, artifact_type, name, content)"
            " VALUES (:id, 'agent', :name, 'plain')"
        )

        async def found(query: str, mode: Any = "text") -> list[str]:
            return ids(await database.vector_search("templates", query, mode=mode))

        async with database.session(write=True) as session:
            for n in range(250):
                await session.execute(insert, {"id": f"sql-{n:03}", "name": f"word{n} common"})
        assert (await found("word7"))[0] == "sql-007"
        assert (await found("word249", "hybrid"))[0] == "sql-249"
        async with database.session(write=True) as session:
            await session.execute("UPDATE templates SET name = 'changed' WHERE id = 'sql-007'")
            await session.execute("UPDATE templates SET content = 'gamma' WHERE id = 'tpl-1'")
            await session.execute("DELETE FROM templates WHERE id = 'sql-009'")
        assert await found("changed") == ["sql-007"]
        assert (await found("gamma"), await found("beta")) == (["tpl-1"], [])
        assert "sql-009" not in await found("word9")
        async with database.session(write=True) as session:
            await session.execute("DELETE FROM templates")
        assert await found("common") == []
        # Deleted before its words were taken over, and stored again.
        async with database.session(write=True) as session:
            await session.execute(insert, {"id": "again", "name": "first"})
            await session.execute("DELETE FROM templates WHERE id = 'again'")
            await session.execute(insert, {"id": "again", "name": "second"})
        assert (await found("first"), await found("second")) == ([], ["again"])

    async def test_changes_that_are_rolled_back_are_not_found(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add(template("tpl-1", name="alpha", content="beta"))

        async def fail() -> None:
            async with database.session(write=True) as session:
                await session.execute("UPDATE templates SET name = 'omega'")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert await templates.find_similar("omega", mode="text") == []
        assert ids(await templates.find_similar("alpha", mode="text")) == ["tpl-1"]

    async def test_without_vectors(self, open_database: OpenDatabase) -> None:
        database = open_database(enable_vectors=False)
        templates = TemplateRepository(database)
        await templates.add_many(some_templates())
        assert names(await templates.find_similar("pytest-xdist", 1, mode="text")) == [
            "pytest-xdist"
        ]
        for mode in WITH_VECTORS:
            with pytest.raises(ConfigurationError, match="switched off"):
                await database.vector_search("templates", "pytest", mode=mode)

    async def test_no_text_breaks_the_syntax(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        everything = some_templates()
        await templates.add_many(everything)
        await templates.add_many(
            template(f"hostile-{n:03}", name=f"x{text}", content=f"{text}x")
            for n, text in enumerate(HOSTILE)
        )
        for query in HOSTILE:
            if query.strip():
                for mode in MODES:
                    await database.vector_search("templates", query, 3, mode=mode)
        assert await templates.count() == len(everything) + len(HOSTILE)
        assert names(await templates.find_similar("pytest-xdist", 1, mode="text")) == [
            "pytest-xdist"
        ]

    async def test_long_texts_are_searched_up_to_256_kb(
        self, templates: TemplateRepository
    ) -> None:
        words = " ".join(f"word{n}" for n in range(40_000))
        early, late = len(words[: 250 * 1024].split()) - 2, 39_000
        assert len(words) > 300 * 1024
        await templates.add(template("long", name="Long", content=words))
        await templates.add(template("short", name="Short", content="word1"))
        assert ids(await templates.find_similar(f"word{early}", 1, mode="text")) == ["long"]
        found = await templates.find_similar(f"word{late}", mode="text")
        # Its first letters are those of all, so that a word like it is found.
        assert all(match.score < TOLERANCE for match in found)
        await templates.update("long", name="Longer")
        assert ids(await templates.find_similar("longer", 1, mode="text")) == ["long"]

    async def test_an_empty_collection(self, database: MetaDatabase) -> None:
        for mode in MODES:
            assert await database.vector_search("templates", "anything", mode=mode) == []
            assert await database.vector_search("best_practices", "a", mode=mode) == []

    async def test_a_search_writes_nothing(
        self, database: MetaDatabase, filled: TemplateRepository
    ) -> None:
        before = await filled.list()
        for mode in MODES:
            await database.vector_search("templates", "security", mode=mode)
        assert await filled.list() == before

    async def test_bad_arguments(
        self, database: MetaDatabase, templates: TemplateRepository
    ) -> None:
        await templates.add(template())
        vector = [1.0] * 64
        modes: tuple[Any, ...] = ("", "Text", "fulltext", "vector; --", None, 5, ["text"])
        for mode in modes:
            with pytest.raises(InvalidValueError, match="vector, text, hybrid"):
                await database.vector_search("templates", "x", mode=mode)
            with pytest.raises(InvalidValueError, match="vector, text, hybrid"):
                await templates.find_similar("x", mode=mode)
        for mode in MODES:
            with pytest.raises(InvalidValueError, match="query"):
                await database.vector_search("templates", mode=mode)
            with pytest.raises(InvalidValueError, match="query"):
                await database.vector_search("templates", mode=mode, vector=vector)
            queries: tuple[Any, ...] = ("", "  ", "a\0", "\ud800", 5, b"x", "x" * (8 * 2**20 + 1))
            for query in queries:
                with pytest.raises(InvalidValueError, match="query"):
                    await database.vector_search("templates", query, mode=mode)
            with pytest.raises(InvalidValueError, match="top_k"):
                await database.vector_search("templates", "x", 0, mode=mode)
            with pytest.raises(InvalidValueError):
                await database.vector_search("templates", "x", mode=mode, filters={"score": 1})
        with pytest.raises(InvalidValueError, match="no vectors"):
            await database.vector_search("templates", "x", mode="text", vector=vector)
        with pytest.raises(InvalidValueError, match="no vectors"):
            await templates.find_similar("x", mode="text", min_similarity=0.5)
        with pytest.raises(InvalidValueError, match="vector"):
            await database.vector_search("templates", "x", mode="hybrid", vector=[1.0])
        with pytest.raises(InvalidValueError, match="min_similarity"):
            await database.vector_search("templates", "x", mode="hybrid", min_similarity=2)
