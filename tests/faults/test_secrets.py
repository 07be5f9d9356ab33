"""A password, a key and a prompt, looked for wherever a program prints, logs, raises or writes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from paracle_meta import (
    BestPracticeRepository,
    ConfigurationError,
    DatabaseSettings,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
    load_config,
)
from tests.embedding_server import Answer, EmbeddingServer
from tests.faults.secret_watch import KEY, PASSWORD, PROMPT, Watch, noted, trusting_url
from tests.faults.vectors import TinyEmbeddings
from tests.postgres import PASSWORD_ROLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.figures import Faults
    from tests.faults.places import Place
    from tests.postgres import PostgresServer

TAKING = 384
"""Dimensions of a model whose name the server and the provider know."""


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch() as watch:
        yield watch


def database(url: str, **more: Any) -> MetaDatabase:
    return MetaDatabase(DatabaseSettings(postgres_url=url, **more), embeddings=TinyEmbeddings())


# --- Providers ----------------------------------------------------------------------------------

ECHO = json.dumps({"error": {"message": f"Bearer {KEY} for {PROMPT}", "code": None}}).encode()
ANSWERS = {
    **{f"status {code}": Answer(status=code, body=ECHO) for code in (400, 401, 403, 404, 413)},
    **{f"status {code}": Answer(status=code, body=ECHO) for code in (408, 429, 500, 503)},
    "no JSON": Answer(body=f"{KEY} {PROMPT}".encode()),
    "JSON of another shape": Answer(body=ECHO),
    "a text for a number": Answer(
        body=json.dumps(
            {"data": [{"embedding": [PROMPT]}], "embeddings": [[KEY]], "model": PROMPT}
        ).encode()
    ),
    "cut off": Answer(cut=True),
}


def remote(place: Place, provider: str, url: str) -> MetaDatabase:
    return MetaDatabase(
        DatabaseSettings(
            **place.given(
                embedding_provider=provider,
                openai_api_key=KEY,
                openai_base_url=f"{url}/v1",
                openai_model="canary-free-model",
                ollama_url=url,
                ollama_model="all-minilm",
                embedding_dimensions=TAKING,
                embedding_max_retries=0,
                embedding_timeout=5,
            )
        )
    )


@pytest.mark.parametrize("provider", ["openai", "ollama"])
async def test_a_provider_that_fails_and_repeats_what_it_was_sent(
    sqlite: Place,
    provider: str,
    watch: Watch,
    faults: Faults,
) -> None:
    with EmbeddingServer() as server:
        async with remote(sqlite, provider, server.url) as db:
            templates = TemplateRepository(db)
            answers = list(ANSWERS.items())[:: faults.times(3, 1)]
            for how, answer in answers:
                server.always(answer)
                await watch.refused(how, db.vector_search("templates", PROMPT))
                await watch.refused(how, BestPracticeRepository(db).find_similar(PROMPT))
                await watch.refused(how, db.embeddings().embed_many([PROMPT, f"{PROMPT} again"]))
                # Stored without a vector, and the log says so.
                template = Template(artifact_type="agent", name=PROMPT, content=PROMPT)
                await watch.done(how, templates.add(template))
            for how, answer in answers:
                server.always(answer)
                try:
                    watch.shown("report", how, await watch.done(how, db.embed_missing()))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is looked through
                    watch.raised(how, error)
            watch.shown("repr", "of a provider", repr(db.embeddings()))
            watch.shown("repr", "of a repository", repr(templates))
            server.always(Answer(hang=True))
        url = server.url
    async with remote(sqlite, provider, url) as db:
        await watch.refused("nobody listens", db.vector_search("templates", PROMPT))
        await watch.refused("a blank text", db.vector_search("templates", "\0" + PROMPT))
        await watch.refused("a surrogate", db.vector_search("templates", "\ud800" + PROMPT))
    noted(faults, watch, f"{provider} fails and repeats what it was sent", "SQLite")


@pytest.mark.parametrize("provider", ["openai", "ollama"])
async def test_where_texts_go_is_said_by_the_configuration_alone(
    sqlite: Place, provider: str, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddingServer(dimensions=TAKING) as server, EmbeddingServer() as other:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OLLAMA_HOST", "OPENAI_PROXY"):
            monkeypatch.setenv(name, other.openai_url)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
            monkeypatch.setenv(name.lower(), other.url)
        monkeypatch.setenv("OPENAI_API_KEY", "another-key")
        async with remote(sqlite, provider, server.url) as db:
            await db.vector_search("templates", PROMPT)
            sent = 1
            assert len(server.requests) == sent
            if provider == "openai":
                assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
            for status in faults.times((302, 307), (301, 302, 303, 307, 308)):
                for target in (other.url, "//127.0.0.1:9", "http://[::1]:9/", ""):
                    path = "/v1/embeddings" if provider == "openai" else "/api/embed"
                    server.plan(Answer(status=status, headers={"Location": target + path}))
                    with pytest.raises(Exception, match=r"redirects elsewhere|final address"):
                        await db.vector_search("templates", PROMPT)
                    sent += 1
        assert len(server.requests) == sent
        assert other.requests == []
    faults.note(
        f"Redirects of {provider}, and addresses and proxies in the environment, for a server on"
        " this machine",
        where="SQLite",
        times=f"{sent - 1} redirects",
        lost=f"{len(other.requests)} requests went elsewhere",
        seen="the address comes from the configuration only; proxies of the environment are used"
        " for other machines, by https as tunnels",
    )


# --- PostgreSQL ---------------------------------------------------------------------------------

ROW = (
    "INSERT INTO generations"
    " (id, artifact_type, name, content, quality_score, created_at, updated_at)"
    " VALUES (:id, :type, :name, :content, :score, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
)
GOOD = {"id": "gen-1", "type": "agent", "name": PROMPT, "content": PROMPT, "score": 1.0}
FEEDBACK = (
    "INSERT INTO feedback (id, generation_id, rating, comment, created_at, updated_at)"
    " VALUES (:id, :parent, 9, :id, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
)
STATEMENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("a missing value", ROW, {**GOOD, "type": None}),
    ("a value out of range", ROW, {**GOOD, "score": 99.0}),
    ("a second row of an id", ROW, {**GOOD, "id": "gen-stored"}),
    ("a second row of a secret id", ROW, {**GOOD, "id": PROMPT}),
    ("a parameter of another type", ROW, {**GOOD, "score": PROMPT}),
    ("a parameter that nothing takes", ROW, {**GOOD, "content": {"prompt": PROMPT}}),
    ("a surrogate", ROW, {**GOOD, "content": "\ud800" + PROMPT}),
    ("a NUL", ROW + ", (:id, :type, :name, :content", {**GOOD, "content": "\0" + PROMPT}),
    ("feedback of no generation", FEEDBACK, {"id": "fbk-1", "parent": PROMPT}),
    ("a missing parameter", ROW, {"id": PROMPT}),
    ("a table that does not exist", "SELECT :prompt FROM nothing", {"prompt": PROMPT}),
    ("a wrong statement", "SELECT :prompt FROM FROM", {"prompt": PROMPT}),
]
CASTS = ("integer", "double precision", "timestamp", "date", "jsonb", "vector", "uuid", "numeric")
POSTGRESQL: list[tuple[str, str, dict[str, Any]]] = [
    *[
        (f"a text as {kind}", f"SELECT CAST(CAST(:prompt AS text) AS {kind})", {"prompt": PROMPT})
        for kind in (*CASTS, "boolean", "inet", "regclass", "regtype", "tsquery", "jsonpath")
    ],
    *[
        (f"a parameter as {kind}", f"SELECT CAST(:prompt AS {kind})", {"prompt": PROMPT})
        for kind in (*CASTS, "boolean", "inet", "regclass", "interval", "text[]", "bytea")
    ],
    ("a query of words", "SELECT to_tsquery(:prompt)", {"prompt": f"{PROMPT} & & ("}),
    ("a search configuration", "SELECT to_tsvector(:p ::regconfig, 'x')", {"p": PROMPT}),
    ("a time limit", "SELECT pg_sleep(20), CAST(:prompt AS text)", {"prompt": PROMPT}),
    ("a JSON path", "SELECT jsonb_path_query('{}', :p ::jsonpath)", {"p": f"$.{PROMPT}"}),
    (
        "an error of the server's own code",
        f"DO $x$ BEGIN RAISE EXCEPTION '%', 'canary-' || 'prompt {PASSWORD[:0]}'; END $x$",
        {},
    ),
]


async def run_statement(db: MetaDatabase, sql: str, parameters: dict[str, Any]) -> None:
    async with db.session(write=True) as session:
        await session.execute(sql.replace(" ::", "\\:\\:"), parameters)


async def cut_off(db: MetaDatabase, place: Place) -> None:
    """Use a session whose connection the server ends meanwhile."""
    assert place.server is not None
    async with db.session() as session:
        await session.execute("SELECT 1")
        place.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{place.database}'"
        )
        await session.execute("SELECT CAST(:p AS text)", {"p": PROMPT})


async def refuse_statements(
    watch: Watch, db: MetaDatabase, statements: list[tuple[str, str, dict[str, Any]]]
) -> None:
    generations, memory = GenerationRepository(db), MemoryRepository(db)
    for record_id in (PROMPT, "gen-stored"):
        record = GenerationResult(id=record_id, artifact_type="a", name="n", content=PROMPT)
        await watch.done("storing", generations.add(record))
    watch.shown("repr", "of a record", repr(record))
    for how, sql, parameters in statements:
        await watch.refused(how, run_statement(db, sql, parameters))
    async with db.session() as session:
        await watch.done("reading", session.execute("SELECT * FROM generations"))
        rows = await session.stream("SELECT id, content FROM generations")
        async for _ in rows:
            """The rows go by, one after the other."""
    for how, work in {
        "another record of an id": generations.add(
            GenerationResult(id="gen-stored", artifact_type="a", name="other", content=PROMPT)
        ),
        # Messages name ids: they say which record is meant, and nothing of what is in it.
        "no such generation": FeedbackRepository(db).add(
            Feedback(generation_id="gen-missing", rating=3, comment=PROMPT)
        ),
        "a rating": FeedbackRepository(db).add(Feedback(generation_id="gen-stored", rating=77)),
        "a surrogate in a record": generations.add(
            GenerationResult(artifact_type="a", name="n", content="\ud800" + PROMPT)
        ),
        "a NUL in memory": memory.set(f"\0{PROMPT}", PROMPT),
        "no JSON in memory": memory.set("key", {PROMPT: object()}),
        "text as a number": generations.update("gen-stored", quality_score=PROMPT),
        "a filter": generations.list(filters={"quality_score": PROMPT}),
        "text as a page": generations.list(limit=PROMPT),  # type: ignore[arg-type]
        "a vector": TemplateRepository(db).add(
            Template(artifact_type="a", name=PROMPT, content=PROMPT, embedding=[1.0, 2.0])
        ),
        "text as a vector": db.vector_search("templates", vector=[PROMPT]),  # type: ignore[list-item]
    }.items():
        await watch.refused(how, work)
    watch.shown("repr", "of a database", repr(db))
    watch.shown("repr", "of settings", f"{db.settings!r} {db.settings} {db.settings.describe()}")
    watch.shown("status", "of a database", await db.status())


async def test_statements_that_postgresql_refuses(
    postgresql: Place, server: PostgresServer, watch: Watch, faults: Faults
) -> None:
    url = trusting_url(server, postgresql.database)
    async with database(url, statement_timeout=0.5) as db:
        await refuse_statements(watch, db, [*STATEMENTS, *POSTGRESQL])
        # What anybody who may connect sees of the others.
        watch.shown(
            "pg_stat_activity",
            "statements of others",
            server.sql("SELECT query, application_name FROM pg_stat_activity"),
        )
        await watch.refused("a connection that was ended", cut_off(db, postgresql))
    noted(faults, watch, "statements and records that are refused", "PostgreSQL")


async def test_statements_that_sqlite_refuses(sqlite: Place, watch: Watch, faults: Faults) -> None:
    async with sqlite.open() as db:
        statements = [
            *STATEMENTS,
            ("no JSON", "SELECT json_extract(:p, '$.a')", {"p": PROMPT}),
            ("too large", "SELECT zeroblob(:n), :p", {"p": PROMPT, "n": 2**31}),
        ]
        # SQLite enforces neither of these itself; a NUL is text to it.
        taken = {"feedback of no generation", "a NUL", "a parameter of another type"}
        statements = [each for each in statements if each[0] not in taken]
        await refuse_statements(watch, db, statements)
    noted(faults, watch, "statements and records that are refused", "SQLite")


# --- Connections and settings -------------------------------------------------------------------


async def test_servers_that_refuse_or_are_away(
    postgresql: Place, server: PostgresServer, watch: Watch, faults: Faults
) -> None:
    name, port = postgresql.database, server.port
    away = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/{name}"
    urls = {
        "a wrong password": server.password_url_of(name, PASSWORD),
        "a wrong password in the query": f"postgresql://{PASSWORD_ROLE}@127.0.0.1:{port}/{name}"
        f"?password={PASSWORD}",
        "no such role": f"postgresql://nobody:{PASSWORD}@127.0.0.1:{port}/{name}",
        "no such database": trusting_url(server, "missing"),
        "nobody listens": away,
        "several hosts": away.replace("127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"),
        "no TLS": f"{trusting_url(server, name)}?sslmode=require",
        "no such certificate": f"{away}?sslmode=verify-full&sslrootcert=/no/such/file",
        "an unknown sslmode": f"{away}?sslmode=perhaps",
        "no such port": away.replace(":1/", ":99999999/"),
        "a host that does not exist": away.replace("127.0.0.1:1", "no-such-host.invalid"),
        "a setting that does not exist": f"{trusting_url(server, name)}?no_such_setting=1",
        "a passphrase": f"{away}?sslpassword={PASSWORD}",
    }
    for how, url in urls.items():
        db = database(url, connect_timeout=5)
        try:
            for work in (
                db.open(),
                db.migrate(),
                db.status(),
                MemoryRepository(db).set("key", PROMPT),
            ):
                await watch.refused(how, work)
            watch.shown("repr", how, f"{db!r} {db.settings!r} {db.settings.describe()}")
        finally:
            await db.close()
    # Migrations that cannot be made.
    server.sql("CREATE TABLE templates (canary int)", name)
    others: dict[str, dict[str, Any]] = {
        "tables of somebody else": {},
        "another URL for migrations": {"migration_url": server.password_url_of(name, PASSWORD)},
        "no migration of its own accord": {"auto_migrate": False},
    }
    for how, more in others.items():
        db = database(trusting_url(server, name), **more)
        await watch.refused(how, db.open())
        watch.shown("repr", how, f"{db!r} {db.settings!r} {db.settings.describe()}")
        await db.close()
    noted(faults, watch, "servers that refuse or are away, failing migrations", "PostgreSQL")


URLS = [
    f"postgresql://u:{PASSWORD} @h/db",
    f"postgresql://u:{PASSWORD}\n@h/db",
    f"postgresql://u:{PASSWORD}#@h/db",
    f"postgresql://u:{PASSWORD}/@h/db",
    f"postgresql://u:{PASSWORD}@h:port/db",
    f"postgresql://u:{PASSWORD}@[::1/db",
    f"postgresql://u:{PASSWORD}@h/db?sslmode",
    f"postgresql://u:{PASSWORD}@h/db?x=1#{PASSWORD}",
    f"postgresql://u:env:{PASSWORD}@h/db",
    f"postgresql://u:{PASSWORD}\0@h/db",
    f"postgresql//u:{PASSWORD}@h/db",
    f"mysql://u:{PASSWORD}@h/db",
    f"u:{PASSWORD}@h/db",
    PASSWORD,
]
"""None of them a URL that can be used."""


def test_settings_that_cannot_be_used(
    tmp_path: Path, watch: Watch, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("PARACLE_META_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for url in URLS:
        for setting in ("postgres_url", "migration_url"):
            given = {setting: url}
            watch.refused_now(f"{setting} as an argument", DatabaseSettings, **given)
            watch.refused_now(f"{setting} given to load_config", load_config, database=given)
            file = tmp_path / "settings.yaml"
            file.write_text(f"database:\n  {setting}: {json.dumps(url)}\n")
            watch.refused_now(f"{setting} in a file", load_config, file)
            if "\0" not in url:
                with monkeypatch.context() as context:
                    context.setenv(f"PARACLE_META_DATABASE__{setting.upper()}", url)
                    watch.refused_now(f"{setting} in the environment", load_config)
        watch.refused_now("a URL", MetaDatabase, url)
    refused = 0
    for name in DatabaseSettings.model_fields:
        for wrong in (KEY, [PASSWORD], {PROMPT: KEY}, f"{KEY}\0", f"{KEY}\n{PASSWORD}", object()):
            try:
                settings = DatabaseSettings(**{name: wrong})
                if name not in {"sqlite_dir", "openai_model", "ollama_model"}:
                    watch.shown("repr", name, f"{settings!r} {settings} {settings.describe()}")
            except ConfigurationError as error:
                watch.raised(f"a wrong {name}", error)
                refused += 1
    assert refused > len(DatabaseSettings.model_fields)
    for text in (
        f"database:\n  postgres_url: postgresql://u:{PASSWORD}@h/db: x",
        f"database:\n\tpostgres_url: {PASSWORD}",
        f"database: [{PASSWORD}",
        f"database: {PASSWORD}",
        f"{PASSWORD}: 1",
        f"database:\n  {PASSWORD}: {KEY}",
        f"database:\n  postgres_url: ${{{'MISSING'}}}{PASSWORD}",
        f"database:\n  openai_api_key: {KEY}\n  openai_api_key: {KEY}",
        f"database:\n  openai_api_key: {KEY} {PASSWORD}",
        f"database:\n  ollama_url: http://u:{PASSWORD}@h",
        f"database:\n  openai_base_url: https://h/v1?key={KEY}",
    ):
        file.write_text(text)
        watch.refused_now("a file of settings", load_config, file)
    file.write_bytes(f"database: {PASSWORD}\xff".encode("latin-1"))
    watch.refused_now("a file that is no text", load_config, file)
    (tmp_path / ".env").write_bytes(f"OPENAI_API_KEY={KEY}\xff".encode("latin-1"))
    watch.refused_now("a .env that is no text", load_config)
    (tmp_path / ".env").write_text(
        f"OPENAI_API_KEY={KEY}\nPARACLE_META_POSTGRES_URL=postgresql://u:{PASSWORD}@h/db\n"
    )
    config = load_config()
    also = {"migration_url": f"postgresql://u@h/db?password={PASSWORD}"}
    for settings in (config.database, load_config(database=also).database):
        assert settings.openai_api_key is not None
        assert settings.openai_api_key.get_secret_value() == KEY
        watch.shown("repr", "of settings", f"{settings!r} {settings} {settings.describe()}")
        watch.shown("JSON", "of settings", settings.model_dump_json())
        watch.refused_now("a change", setattr, settings, "postgres_url", PASSWORD)
        watch.shown("repr", "of a database", repr(MetaDatabase(settings)))
    watch.shown("repr", "of the configuration", f"{config!r} {config} {config.origins()}")
    noted(faults, watch, "settings and URLs that cannot be used", "both")
