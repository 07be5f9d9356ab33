"""The same secrets in files and programs that move data, and on the command line."""

from __future__ import annotations

import io
import json
import os
import shlex
from typing import TYPE_CHECKING

import pytest

from paracle_meta import (
    DatabaseSettings,
    GenerationRepository,
    GenerationResult,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.transfer import (
    back_up,
    copy_database,
    export_jsonl,
    export_sql,
    import_file,
    restore,
)
from tests.cli.conftest import Cli
from tests.embedding_server import Answer, EmbeddingServer
from tests.faults.secret_watch import KEY, PASSWORD, PROMPT, Watch, noted, trusting_url
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.figures import Faults
    from tests.faults.places import Place
    from tests.postgres import PostgresServer


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch() as watch:
        yield watch


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no setting from whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().startswith(("PARACLE_META_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def secretive(place: Place, server: PostgresServer | None) -> MetaDatabase:
    """A database whose settings hold a password, where it has one, and a key."""
    given = {**place.settings, "openai_api_key": KEY}
    if server is not None:
        given["postgres_url"] = trusting_url(server, place.database)
    return MetaDatabase(DatabaseSettings(**given), embeddings=TinyEmbeddings())


def generation(record_id: str, content: str = PROMPT) -> GenerationResult:
    return GenerationResult(id=record_id, artifact_type="agent", name="n", content=content)


LINES = [
    {"kind": "generations", "id": "gen-stored", "artifact_type": "a", "name": "n", "content": "x"},
    {"kind": "generations", "id": "gen-2", "artifact_type": "a", "content": PROMPT},
    {"kind": "generations", "id": "gen-3", "name": PROMPT, "quality_score": PROMPT},
    {"kind": "feedback", "id": "fbk-1", "generation_id": "gen-none", "comment": PROMPT},
    {"kind": "memory", "key": PROMPT, "value": PROMPT, "expires_at": PROMPT},
    {"kind": "templates", "id": "tpl-2", "content": PROMPT, "embedding": [PROMPT]},
    {"kind": PROMPT, "content": PROMPT},
    [PROMPT],
    PROMPT,
]
"""None of them can be stored: another record of the id, values missing or of another kind."""

RECORD = """#!/bin/sh
tr '\\0' '\\n' < /proc/$$/cmdline >> {seen}
echo >> {seen}
exec {real} "$@"
"""
"""A program that writes down its command line, which everybody can see, and becomes the real."""

FAIL = f"""#!/bin/sh
if [ "$1" = --version ]; then exec {{real}} --version; fi
echo '{{name}}: error: query failed: ERROR:  null value in column "name" violates a constraint' >&2
echo 'DETAIL:  Failing row contains (gen-1, {PROMPT}).' >&2
echo 'CONTEXT:  COPY generations, line 1: "{PROMPT} {PASSWORD}"' >&2
exit 1
"""


def programs(server: PostgresServer, folder: Path, script: str, **words: str) -> Path:
    """Return a folder of PostgreSQL's programs, each behind a shell script."""
    folder.mkdir()
    for name in ("pg_dump", "pg_restore", "psql"):
        real = shlex.quote(str(server.bin / name))
        (folder / name).write_text(script.format(real=real, name=name, **words))
        (folder / name).chmod(0o755)
    return folder


async def test_files_and_programs_that_move_data(
    place: Place, tmp_path: Path, watch: Watch, faults: Faults
) -> None:
    server = place.server
    seen = tmp_path / "seen"
    recording = failing = None
    if server is not None:
        recording = programs(server, tmp_path / "recording", RECORD, seen=str(seen))
        failing = programs(server, tmp_path / "failing", FAIL)
    other = DatabaseSettings(sqlite_dir=tmp_path / "other")
    async with (
        secretive(place, server) as db,
        MetaDatabase(other, embeddings=TinyEmbeddings()) as second,
    ):
        # Exports and backups hold the records; here these hold nothing secret, settings do.
        await GenerationRepository(db).add(generation("gen-stored", "c"))
        await TemplateRepository(db).add(
            Template(id="tpl-1", artifact_type="a", name="n", content="c")
        )
        for export in (export_jsonl, export_sql):
            output = io.BytesIO()
            watch.shown("report", export.__name__, await export(db, output))
            watch.shown("file", export.__name__, output.getvalue().decode())
        report = await back_up(db, tmp_path / "backup", pg_bin=recording)
        watch.shown("report", "a backup", report)
        for file in (tmp_path / "backup").iterdir():
            watch.shown(f"file {file.name}", "a backup", file.read_bytes().decode("latin-1"))
        watch.shown(
            "report",
            "a restore",
            await restore(db, tmp_path / "backup", replace=True, pg_bin=recording),
        )
        if server is not None:
            watch.shown("command lines", "backup and restore", seen.read_text())
            assert seen.read_text().count("paracle-meta") or "pg_dump" in seen.read_text()

        lines = "".join(f"{json.dumps(line)}\n" for line in LINES).encode()
        script = f"INSERT INTO generations (id, name) VALUES ('x', '{PROMPT}');\n".encode()
        broken = f'{{"kind": "generations", "content": "{PROMPT}'.encode()
        for source in (lines, lines + broken, broken, script, script[:-9], b"\xff" + lines):
            try:
                imported = await import_file(db, io.BytesIO(source))
                watch.shown("report", "an import", imported)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is looked through
                watch.raised("an import", error)
            await watch.refused("a strict import", import_file(db, io.BytesIO(source), strict=True))

        await GenerationRepository(second).add(generation("gen-stored"))
        await GenerationRepository(second).add(generation("gen-more"))
        watch.shown("report", "a copy", await copy_database(second, db))
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "manifest.json").write_text(json.dumps({PROMPT: PASSWORD}))
        for how, work in {
            "a backup into a folder that is taken": back_up(db, tmp_path / "taken"),
            "a restore of no backup": restore(db, tmp_path / "taken", replace=True),
            "a restore into records": restore(db, tmp_path / "backup", pg_bin=recording),
            "an export to nowhere": export_jsonl(db, tmp_path / "no" / "such" / "file"),
            "an import of nothing": import_file(db, tmp_path / "nothing"),
            "a copy to itself": copy_database(db, db),
        }.items():
            await watch.refused(how, work)
        if server is not None:
            for how, work in {
                "a pg_dump that fails": back_up(db, tmp_path / "b2", pg_bin=failing),
                "a pg_restore that fails": restore(
                    db, tmp_path / "backup", replace=True, pg_bin=failing
                ),
                "no programs": back_up(db, tmp_path / "b3", pg_bin=tmp_path),
            }.items():
                await watch.refused(how, work)
    noted(
        faults,
        watch,
        "exports, backups, imports, copies and the programs that they start",
        "SQLite" if server is None else "PostgreSQL",
        "a password goes to pg_dump and psql in their environment, which only the same user reads"
        if server is not None
        else "",
    )


def test_commands_that_fail_and_say_all(
    alone: Path,
    server: PostgresServer,
    watch: Watch,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_PROVIDER", "openai")
    monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_MAX_RETRIES", "0")
    monkeypatch.setenv("PARACLE_META_DATABASE__EMBEDDING_DIMENSIONS", "8")
    monkeypatch.setenv("PARACLE_META_DATABASE__OPENAI_MODEL", "own")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    name = server.create_database()
    good = Cli(trusting_url(server, name))
    wrong = Cli(server.password_url_of(name, PASSWORD))
    unusable = Cli(f"postgresql://u:{PASSWORD} @h/db")
    (alone / "bad.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    (alone / "bad.yaml").write_text(f"database:\n  postgres_url: {PASSWORD}: {KEY}\n")
    add = ("generations", "add", "-", "--type", "a", "--name", "n")
    shown = ("config", "show"), ("config", "show", "--json"), ("db", "status"), ("db", "path")
    failing = [
        *[
            (wrong, command, "")
            for command in (("db", "status"), ("db", "migrate"), ("memory", "list"))
        ],
        *[(unusable, command, "") for command in (*shown, ("config", "validate"))],
        (good, (*add, "--quality-score", "77"), PROMPT),
        (good, (*add, "--metadata", f'{{"{PROMPT}'), PROMPT),
        (good, add, PROMPT + "\0"),
        (good, ("feedback", "add", "gen-none", "5", "--comment", PROMPT), ""),
        (good, ("search", "templates", PROMPT), ""),
        (good, ("import", "bad.jsonl", "--strict"), ""),
        (good, ("backup", "backup", "--pg-bin", "nowhere"), ""),
    ]
    with EmbeddingServer() as provider:
        monkeypatch.setenv("PARACLE_META_DATABASE__OPENAI_BASE_URL", provider.openai_url)
        echo = json.dumps({"error": {"message": f"{KEY} {PROMPT}"}}).encode()
        provider.always(Answer(status=401, body=echo))
        for cli, command, stdin in failing:
            for verbose in ((), ("--verbose",)):
                result = cli.run(*verbose, *command, stdin=stdin)
                assert result.exit_code, (command, result.output)
                watch.shown("stdout", " ".join(command)[:40], result.stdout)
                watch.shown("stderr", " ".join(command)[:40], result.stderr)
        for command in shown:
            result = good.run("--verbose", *command)
            assert result.exit_code == 0, result.output
            watch.shown("output", " ".join(command), result.output)
    result = good.run("--config", "bad.yaml", "config", "show")
    watch.shown("output", "a file of settings", result.output)
    # A mistake of this package: its words may be anything, so only its kind is told.
    with monkeypatch.context() as context:

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError(f"{PROMPT} {PASSWORD}")

        context.setattr("paracle_meta.repositories.memory.MemoryRepository.list", broken)
        result = good.run("memory", "list")
    assert "RuntimeError" in result.stderr
    watch.shown("output", "a mistake", result.output)
    noted(faults, watch, "commands that fail, also with --verbose; config show", "both")
