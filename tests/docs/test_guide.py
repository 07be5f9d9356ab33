"""The database guide is the specification: what it shows runs, and what it says is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    CostReport,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    Template,
    TemplateMatch,
    TemplateRepository,
    load_config,
)
from paracle_meta.embeddings import LocalEmbeddings, OllamaEmbeddings, OpenAIEmbeddings
from tests.docs.markdown import ROOT, Assigned, Block, blocks_of, run_python
from tests.embedding_server import EmbeddingServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from paracle_meta import Config
    from tests.postgres import PostgresServer

    Check = Callable[[Assigned], None]

GUIDE = ROOT / "docs" / "database-guide.md"
SNIPPETS = blocks_of(GUIDE, "python")
DATABASES = ["sqlite", "postgresql-16", "postgresql-18"]
DIMENSIONS = {"openai": 1536, "ollama": 768, "local": 256}

# One more than the guide asks for in each place, so that its limits are seen to limit.
TEMPLATES = 6
GENERATIONS = 11


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'files'}"
    major = request.param.rpartition("-")[2]
    postgres: PostgresServer = request.getfixturevalue(f"postgres{major}")
    return postgres.url_of(postgres.create_database())


@pytest.fixture(params=["openai"])
def config(
    request: pytest.FixtureRequest,
    database: str,
    server: EmbeddingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Config:
    """`load_config()` in a project folder: SQLite from the environment, PostgreSQL from YAML."""
    _plain_environment(monkeypatch, tmp_path)
    settings = {"embedding_provider": request.param, "ollama_url": server.url}
    if request.param == "openai":
        settings |= {"openai_api_key": "sk-test", "openai_base_url": server.openai_url}
    if database.startswith("sqlite"):
        monkeypatch.setenv("PARACLE_META_SQLITE_DIR", database)
        for name, value in settings.items():
            monkeypatch.setenv(f"PARACLE_META_DATABASE__{name.upper()}", value)
    else:
        lines = [f'    {name}: "{value}"\n' for name, value in settings.items()]
        lines.append(f'    postgres_url: "{database}"\n')
        _write_yaml(tmp_path, "meta_agent:\n  database:\n" + "".join(lines))
    return load_config()


def _plain_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Stand in an empty project folder, with no setting from outside."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_DATA_HOME", "OPENAI_API_KEY", "PARACLE_META_POSTGRES_URL"):
        monkeypatch.delenv(name, raising=False)


def _write_yaml(folder: Path, text: str) -> None:
    file = folder / ".parac" / "config" / "meta_agent.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _code(block: Block, server: EmbeddingServer) -> str:
    """A snippet's code with the key and the addresses of this machine, nothing else changed."""
    return block.code.replace(
        'api_key="sk-...",', f'api_key="sk-test", base_url="{server.openai_url}",'
    ).replace("http://localhost:11434", server.url)


async def _run(block: Block, code: str, names: Assigned) -> None:
    running: Awaitable[object] | None = run_python(block, code, {}, names)
    if running is not None:
        await running


async def _close(names: Assigned) -> None:
    """Close what the snippets left open."""
    for value in [value for values in names.history.values() for value in values]:
        if isinstance(value, MetaDatabase | LocalEmbeddings | OllamaEmbeddings | OpenAIEmbeddings):
            await value.close()


def _generation() -> GenerationResult:
    return GenerationResult(
        id="gen-123",
        artifact_type="agent",
        name="Security Reviewer",
        description="Python security scanner that reviews code",
        content="# Security Reviewer\n\nReview the code for vulnerabilities.",
        quality_score=9.0,
        provider="anthropic",
        model="claude-sonnet-4-20250514",
        tokens_used=1500,
        cost=0.015,
        metadata={"version": 2},
    )


async def _prepare(db: MetaDatabase, generation: GenerationResult) -> None:
    """Store what the guide's text takes for granted."""
    earlier = datetime.now(UTC) - timedelta(days=1)
    generations = [
        GenerationResult(
            artifact_type="skill",
            name=f"Skill {number}",
            content="A skill.",
            created_at=earlier + timedelta(minutes=number),
        )
        for number in range(GENERATIONS - 1)
    ]
    await GenerationRepository(db).add_many([*generations, generation])
    subjects = ("security audit", "tests", "release notes", "SQL", "logging", "costs")
    await TemplateRepository(db).add_many(
        Template(artifact_type="agent", name=f"Agent for {subject}", content=f"Looks at {subject}.")
        for subject in subjects
    )


# What the guide says about each snippet


def check_providers(names: Assigned) -> None:
    first, second = names.history["embedding"]
    # "Returns: list[float] with 1536 dimensions", and with 768.
    for embedding, dimensions in ((first, 1536), (second, 768)):
        assert type(embedding) is list
        assert {type(number) for number in embedding} == {float}
        assert len(embedding) == dimensions
    assert names["provider"].model_id == "openai/text-embedding-3-small"  # by the configuration
    assert names["openai_embed"].dimensions == 1536
    assert names["ollama_embed"].dimensions == 768


def check_search(names: Assigned) -> None:
    _check_matches(names["similar"])
    assert names["similar"][0].name == "Agent for security audit"


def _check_matches(matches: Any) -> None:
    assert type(matches) is list
    assert [type(match) for match in matches] == [TemplateMatch] * 5
    similarities = [match.similarity for match in matches]
    assert {type(similarity) for similarity in similarities} == {float}
    assert similarities == sorted(similarities, reverse=True)
    assert all(-1 <= similarity <= 1 for similarity in similarities)
    assert all(match.artifact_type == "agent" for match in matches)
    assert all(match.content.startswith("Looks at") for match in matches)


def check_generations(names: Assigned) -> None:
    by_id, with_feedback = names.history["gen"]
    expected = names["generation_result"]
    assert type(by_id) is GenerationResult
    for name in (field.name for field in fields(GenerationResult)):
        assert getattr(by_id, name) == getattr(expected, name), name
    assert with_feedback == by_id
    assert names["feedback"] == []
    recent = names["recent"]
    assert [type(generation) for generation in recent] == [GenerationResult] * 10
    times = [generation.created_at for generation in recent]
    assert times == sorted(times, reverse=True)
    assert recent[0].id == "gen-123"


def check_templates(names: Assigned) -> None:
    _check_matches(names["templates"])
    template, generation = names["template"], names["generation_result"]
    assert type(template) is Template
    assert template.source == "generation:gen-123"
    assert (template.name, template.content) == (generation.name, generation.content)
    assert template.artifact_type == "agent"
    assert template.quality_score == 9.0
    assert template.usage_count == 0


def check_feedback(names: Assigned) -> None:
    (feedback,) = names["feedback_list"]
    assert type(feedback) is Feedback
    assert feedback.generation_id == "gen-123"
    assert (feedback.rating, feedback.comment) == (5, "Excellent!")


def check_costs(names: Assigned) -> None:
    assert type(names["daily"]) is float
    assert names["daily"] == names["monthly"] == 0.015
    report = names["report"]
    assert type(report) is CostReport
    assert report.period == "monthly"
    assert (report.total, report.calls, report.unpriced_calls) == (0.015, 1, 0)
    assert (report.input_tokens, report.output_tokens, report.tokens) == (1000, 500, 1500)
    assert report.by_provider["anthropic"].total == 0.015
    assert report.by_model["claude-sonnet-4-20250514"].calls == 1
    assert [line.total for line in report.by_day.values()] == [0.015]


def check_session(names: Assigned) -> None:
    row = names["row"]
    assert row.id == "gen-123"
    assert row.content == names["generation_result"].content
    assert set(_guide_tables()["generations"]) <= set(row._fields)


def check_migration(names: Assigned) -> None:
    assert type(names["db"]) is MetaDatabase


CHECKS: dict[str, Check] = {
    "Embedding Providers": check_providers,
    "Similarity Search": check_search,
    "GenerationRepository": check_generations,
    "TemplateRepository": check_templates,
    "FeedbackRepository": check_feedback,
    "CostRepository": check_costs,
    "Direct Session Access": check_session,
    "Schema Updates": check_migration,
}


def test_every_snippet_is_checked() -> None:
    assert [block.heading for block in SNIPPETS] == list(CHECKS)
    assert all(block.not_run is None for block in SNIPPETS)


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.heading)
async def test_a_snippet_runs_verbatim(
    block: Block, config: Config, server: EmbeddingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    names = Assigned()
    names["config"], names["generation_result"] = config, _generation()
    names["db"] = MetaDatabase(config.database)
    await _prepare(names["db"], names["generation_result"])
    try:
        await _run(block, _code(block, server), names)
        CHECKS[block.heading](names)
        status = await names["db"].status()
        assert status.revision == status.head
    finally:
        await _close(names)
    if block.heading == "Similarity Search":
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == 5
        assert all(re.fullmatch(r"Agent for [\w ]+: -?\d\.\d\d", line) for line in printed)


@pytest.mark.parametrize("config", list(DIMENSIONS), indirect=True)
async def test_the_snippets_run_one_after_another_on_an_empty_database(
    config: Config, server: EmbeddingServer
) -> None:
    """As somebody does who reads the guide from top to bottom."""
    names = Assigned()
    names["config"], names["generation_result"] = config, _generation()
    try:
        for block in SNIPPETS:
            await _run(block, _code(block, server), names)
        template = await TemplateRepository(names["db"]).get(
            names["template"].id, with_embedding=True
        )
        ratings = await FeedbackRepository(names["db"]).get_for_generation("gen-123")
    finally:
        await _close(names)
    assert names["similar"] == []  # nothing was stored yet
    assert [feedback.rating for feedback in ratings] == [5]
    assert template is not None
    assert template.embedding is not None
    assert len(template.embedding) == DIMENSIONS[config.database.embedding_provider]


async def test_migrate_makes_the_schema_of_an_empty_database(config: Config) -> None:
    names = Assigned()
    names["config"] = config
    (block,) = [block for block in SNIPPETS if block.heading == "Schema Updates"]
    try:
        await _run(block, block.code, names)
        status = await names["db"].status()
    finally:
        await _close(names)
    assert status.revision == status.head
    assert set(status.counts) == set(_guide_tables())


# Configuration


def test_both_yaml_shapes_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plain_environment(monkeypatch, tmp_path)
    connection, embeddings, pool = [block.code for block in blocks_of(GUIDE, "yaml")]

    _write_yaml(tmp_path, connection)
    settings = load_config().database
    assert settings.postgres_url is not None
    assert settings.postgres_url.get_secret_value() == (
        "postgresql://paracle:secret@localhost:5432/paracle_meta"
    )
    assert (settings.pool_size, settings.pool_recycle, settings.enable_vectors) == (10, 3600, True)

    _write_yaml(tmp_path, embeddings)
    settings = load_config().database
    assert (settings.enable_vectors, settings.embedding_provider) == (True, "openai")
    assert settings.openai_model == "text-embedding-3-small"
    assert settings.ollama_model == "nomic-embed-text"
    assert settings.ollama_url == "http://localhost:11434"

    _write_yaml(tmp_path, pool)
    settings = load_config().database
    assert (settings.pool_size, settings.pool_recycle, settings.pool_pre_ping) == (10, 3600, True)


SHOW_URL = """
from paracle_meta import load_config
url = load_config().database.postgres_url
print(url, url.get_secret_value())
"""


def test_the_environment_line_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plain_environment(monkeypatch, tmp_path)
    (line,) = [
        block.code.strip()
        for block in blocks_of(GUIDE, "bash")
        if block.code.startswith("PARACLE_META_POSTGRES_URL=")
    ]
    shown = subprocess.run(
        ["/bin/sh", "-c", f'{line} "$0" -c "$1"', sys.executable, SHOW_URL],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    # As printed it is masked; the setting itself is what the guide gives.
    assert shown == ["**********", line.partition("=")[2]]


# Files and schema


async def test_the_files_lie_where_the_guide_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other platforms' folders are held in the tests of the configuration."""
    _plain_environment(monkeypatch, tmp_path)
    text = GUIDE.read_text()
    (location,) = re.findall(r"\| Linux \| `~/(.+?)/` \|", text)
    files = re.findall(r"^- `(\w+\.db)` - ", text, re.MULTILINE)
    assert len(files) == 6
    async with MetaDatabase(load_config().database):
        folder = tmp_path / location
        assert sorted(path.name for path in folder.glob("*.db")) == sorted(files)


SQLITE_TYPES = {
    "VARCHAR": "VARCHAR",
    "TEXT": "TEXT",
    "FLOAT": "FLOAT",
    "INTEGER": "INTEGER",
    "TIMESTAMP": "TIMESTAMP",
    "DATE": "DATE",
    "JSONB": "JSON",
    "TEXT[]": "TEXT",
    "vector(1536)": "BLOB",
}
POSTGRES_TYPES = {
    "VARCHAR": "character varying",
    "TEXT": "text",
    "FLOAT": "double precision",
    "INTEGER": "integer",
    "TIMESTAMP": "timestamp with time zone",  # on purpose, see the note in the guide
    "DATE": "date",
    "JSONB": "jsonb",
    "TEXT[]": "text[]",
    "vector(1536)": "vector(1536)",
}
POSTGRES_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
"""
SQLITE_COLUMNS = """SELECT name, type, "notnull", dflt_value FROM pragma_table_info(:name)"""


def _guide_tables() -> dict[str, dict[str, tuple[str, str]]]:
    """The tables of the guide's SQL: each column with its type and the rest of its line."""
    (block,) = [b for b in blocks_of(GUIDE, "sql") if "CREATE TABLE" in b.code]
    tables = {}
    for name, body in re.findall(r"CREATE TABLE (\w+) \((.+?)\n\);", block.code, re.DOTALL):
        columns = re.findall(r"^    (\w+) (\w+(?:\(\d+\)|\[\])?)(.*)$", body, re.MULTILINE)
        tables[name] = {column: (kind, rest) for column, kind, rest in columns}
    return tables


def test_the_guides_sql_is_understood() -> None:
    assert {name: len(columns) for name, columns in _guide_tables().items()} == {
        "generations": 12,
        "templates": 10,
        "feedback": 5,
        "costs": 9,
        "memory": 7,
        "best_practices": 9,
    }


async def test_every_column_of_the_guide_exists_with_its_type(config: Config) -> None:
    sqlite = config.database.backend == "sqlite"
    types = SQLITE_TYPES if sqlite else POSTGRES_TYPES
    query = SQLITE_COLUMNS if sqlite else POSTGRES_COLUMNS
    async with MetaDatabase(config.database) as db, db.session() as session:
        for table, columns in _guide_tables().items():
            rows = await session.execute(query, {"name": table})
            found = {
                name: (kind, bool(required), default) for name, kind, required, default in rows
            }
            for name, (kind, rest) in columns.items():
                actual, required, default = found[name]
                assert actual == types[kind], (table, name)
                if "NOT NULL" in rest or "PRIMARY KEY" in rest:
                    assert required, (table, name)
                if "DEFAULT" in rest:
                    wanted = rest.partition("DEFAULT ")[2].split(",")[0]
                    if wanted != "CURRENT_TIMESTAMP":  # each database spells it its own way
                        assert default.startswith(wanted), (table, name)
                    assert default is not None, (table, name)


@pytest.mark.parametrize("database", ["postgresql-16", "postgresql-18"], indirect=True)
async def test_the_vector_index_exists_after_the_first_run(config: Config) -> None:
    async with MetaDatabase(config.database) as db, db.session() as session:
        definition = await session.scalar(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'templates_embedding_idx'"
        )
    # HNSW on purpose, see the note in the guide.
    assert "USING hnsw (embedding vector_cosine_ops)" in definition
