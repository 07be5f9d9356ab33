"""`examine`: each kind of damage is made for real, found, mended or named, and then gone."""

from __future__ import annotations

import json
import shutil
import struct
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pysqlite3 import dbapi2 as pysqlite

from paracle_meta import (
    BestPractice,
    BestPracticeRepository,
    CostRepository,
    DatabaseConnectionError,
    DatabaseSettings,
    EmbeddingProviderError,
    Feedback,
    FeedbackRepository,
    GenerationRepository,
    GenerationResult,
    MemoryRepository,
    MetaDatabase,
    Template,
    TemplateRepository,
)
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.backends.postgresql.health import examine_extension
from paracle_meta.backends.sqlite.surroundings import (
    NETWORK,
    examine_surroundings,
    file_system,
    has_wal_bug,
)
from paracle_meta.health import examine
from paracle_meta.schema import TEMPLATES
from paracle_meta.transfer import back_up, import_file
from tests.faults.places import NAMES, Place, attached
from tests.faults.vectors import TinyEmbeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paracle_meta.health import Finding
    from tests.faults.figures import Faults
    from tests.postgres import PostgresServer

MODEL = TinyEmbeddings().model_id
BYTES = 4 * TinyEmbeddings().dimensions


@pytest.fixture(params=["sqlite", "postgresql16", "postgresql18"])
def anywhere(request: pytest.FixtureRequest) -> Place:
    """An empty database, on SQLite and on both PostgreSQL servers in turn."""
    if request.param == "sqlite":
        place: Place = request.getfixturevalue("sqlite")
        return place
    return on_server(request.getfixturevalue(f"postgres{request.param[-2:]}"))


@pytest.fixture
def postgres_place(postgres18: PostgresServer) -> Place:
    return on_server(postgres18)


def name_of(place: Place) -> str:
    return "SQLite" if place.server is None else f"PostgreSQL {place.server.major}"


def on_server(server: PostgresServer) -> Place:
    database = server.create_database()
    settings = {"postgres_url": server.url_of(database)}
    return Place(settings=settings, server=server, database=database)


async def look(
    place: Place,
    *,
    fix: bool = False,
    folder: Path | str = "/nowhere",
    embeddings: TinyEmbeddings | None = None,
    **more: Any,
) -> dict[str, Finding]:
    """Return what is found, by its names; what was fixed is not among it."""
    settings = DatabaseSettings(**place.given(**more))
    db = MetaDatabase(settings, embeddings=embeddings or TinyEmbeddings())
    try:
        report = await examine(db, fix=fix, folder=folder)
    finally:
        await db.close()
    assert report.healthy == all(finding.fixed for finding in report.findings)
    return {finding.name: finding for finding in report.findings}


async def assert_found(place: Place, *names: str, **more: Any) -> dict[str, Finding]:
    """See that looking finds this and nothing else, and changes nothing of it."""
    found = await look(place, **more)
    assert (sorted(found), [each.fixed for each in found.values()]) == (
        sorted(names),
        [False] * len(names),
    )
    return found


async def assert_mended(place: Place, *names: str, **more: Any) -> dict[str, Finding]:
    """See that this is found, and mended, and that then all is well."""
    await assert_found(place, *names, **more)
    mended = await look(place, fix=True, **more)
    assert {name for name, finding in mended.items() if not finding.fixed} == set()
    assert set(names) <= set(mended)
    await assert_found(place, **more)
    return mended


def run_sql(place: Place, *statements: str) -> None:
    """Do what a foreign program does, past the package."""
    if place.server is not None:
        for statement in statements:  # One by one: some may not be in a transaction.
            place.server.sql(statement, place.database)
        return
    with closing(attached(place.folder)) as connection:
        for statement in statements:
            connection.execute(statement)


def listed(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


async def fill(place: Place) -> None:
    async with place.open() as db:
        for number in range(3):
            await GenerationRepository(db).add(
                GenerationResult(id=f"gen-{number}", artifact_type="agent", name="n", content="c")
            )
            await FeedbackRepository(db).add(Feedback(generation_id=f"gen-{number}", rating=5))
            await TemplateRepository(db).add(
                Template(id=f"tpl-{number}", artifact_type="agent", name=f"n{number}", content="c")
            )
        await BestPracticeRepository(db).add(
            BestPractice(category="style", title="Short sentences", content="Write short ones.")
        )
        await MemoryRepository(db).set("key", "value")
        await CostRepository(db).record("p", "m")


@pytest.fixture
async def filled_anywhere(anywhere: Place) -> Place:
    await fill(anywhere)
    return anywhere


@pytest.fixture(params=["files", "tables"])
def filled(request: pytest.FixtureRequest) -> Place:
    """A database with records, on SQLite and on PostgreSQL 18 in turn."""
    place: Place = request.getfixturevalue(request.param)
    return place


@pytest.fixture
async def files(sqlite: Place) -> Place:
    await fill(sqlite)
    return sqlite


@pytest.fixture
async def tables(postgres_place: Place) -> Place:
    await fill(postgres_place)
    return postgres_place


# Both databases


async def test_nothing_is_made_by_looking(anywhere: Place) -> None:
    if anywhere.server is None:
        found = await assert_found(anywhere, "no-tables")
        assert not anywhere.folder.exists()
    else:
        found = await assert_found(anywhere, "no-tables", "missing-extension")
        assert anywhere.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
    await assert_mended(anywhere, *found)
    await fill(anywhere)
    await assert_found(anywhere)
    await assert_found(anywhere, enable_vectors=False)


async def test_orphans_are_moved_into_a_file_that_import_takes(
    filled_anywhere: Place, tmp_path: Path, faults: Faults
) -> None:
    filled = filled_anywhere
    if filled.server is None:
        run_sql(filled, "DELETE FROM generations WHERE id <> 'gen-1'")
    else:
        # What a restore without its constraints, or a replica's role, leaves.
        delete = "DELETE FROM generations WHERE id <> 'gen-1'"
        run_sql(filled, f"SET session_replication_role = replica; {delete}")

    # Where they cannot be written they stay.
    found = await look(filled, fix=True, folder=tmp_path / "nowhere")
    assert not found["orphaned-feedback"].fixed
    assert "cannot be written" in str(found["orphaned-feedback"].result)
    assert len(filled.orphans()) == found["orphaned-feedback"].count == 2

    mended = await assert_mended(filled, "orphaned-feedback", folder=tmp_path)
    (file,) = listed(tmp_path, "orphaned-feedback-*.jsonl")
    assert str(file) in str(mended["orphaned-feedback"].result)
    assert file.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["generation_id"] for line in lines) == ["gen-0", "gen-2"]
    assert filled.rows("SELECT generation_id FROM feedback") == [("gen-1",)]

    async with filled.open() as db:
        for number in (0, 2):
            await GenerationRepository(db).add(
                GenerationResult(id=f"gen-{number}", artifact_type="agent", name="n", content="c")
            )
        added = (await import_file(db, file)).added["feedback"]
    assert added == len(lines)
    await assert_found(filled)
    faults.note(
        "Feedback left behind by another program, found and moved out by doctor --fix",
        where=name_of(filled),
        times=f"{len(lines)} records",
        lost=f"{len(lines) - added} records: an import brought back {added}",
    )


async def test_vectors_of_several_models_or_of_another_one(filled: Place) -> None:
    run_sql(filled, "UPDATE templates SET embedding_model = 'else/where' WHERE id = 'tpl-1'")
    found = await assert_found(filled, "mixed-models")
    assert "paracle meta reembed templates" in found["mixed-models"].repair
    assert "else/where" in found["mixed-models"].what
    run_sql(filled, "UPDATE templates SET embedding_model = 'else/where'")
    await assert_found(filled, "other-model")
    # It may cost money, and the setting may be what is wrong.
    assert not (await look(filled, fix=True))["other-model"].fixed
    async with filled.open() as db:
        await db.reembed("templates")
    await assert_found(filled)


class Away(TinyEmbeddings):
    async def embed(self, text: str) -> list[float]:  # noqa: ARG002 - as the others have it
        raise EmbeddingProviderError("It is away.")


async def test_records_without_a_vector(filled: Place) -> None:
    # Other texts, as the vectors of the old ones are in the cache.
    texts = "content = 'other ' || id, name = 'other ' || id"
    run_sql(filled, f"UPDATE templates SET {texts}, embedding = NULL, embedding_model = NULL")
    found = await look(filled, fix=True, embeddings=Away())
    assert not found["missing-vectors"].fixed
    assert "It is away." in str(found["missing-vectors"].result)
    assert found["missing-vectors"].count == 3
    await assert_mended(filled, "missing-vectors")
    assert filled.rows("SELECT count(*) FROM templates WHERE embedding IS NOT NULL") == [("3",)]


async def test_vectors_that_are_none(filled_anywhere: Place) -> None:
    filled = filled_anywhere
    run_sql(
        filled,
        "UPDATE templates SET embedding = NULL WHERE id = 'tpl-0'",
        "UPDATE templates SET embedding_model = NULL WHERE id = 'tpl-1'",
    )
    if filled.server is None:
        run_sql(filled, "UPDATE templates SET embedding = x'0000803f' WHERE id = 'tpl-2'")
    found = await look(filled)
    assert found["broken-vectors"].count == (3 if filled.server is None else 2)
    await assert_mended(filled, *found)
    assert filled.rows(f"SELECT count(*) FROM templates WHERE embedding_model = '{MODEL}'") == [
        ("3",)
    ]


async def test_a_change_of_model_that_was_stopped(filled: Place) -> None:
    wider = TinyEmbeddings(16)
    space = VectorSpace(wider.model_id, wider.dimensions)
    async with (
        filled.open() as db,
        (await db.backend()).collections.change_of_model(TEMPLATES, space),
    ):
        """Begin it, and leave it."""
    found = await assert_found(filled, "unfinished-change")
    assert wider.model_id in found["unfinished-change"].what
    assert not (await look(filled, fix=True))["unfinished-change"].fixed
    async with filled.open() as db:
        await db.reembed("templates")
    await assert_found(filled)


async def test_the_schema_is_old_or_too_new(filled: Place) -> None:
    version = "UPDATE {}paracle_meta_version SET version_num = '{}'"
    tables = ["costs."] if filled.server is None else [""]
    run_sql(filled, *(version.format(table, "0004") for table in tables))
    await assert_found(filled, "unapplied-migrations", auto_migrate=False)
    await assert_mended(filled, "unapplied-migrations", auto_migrate=False)
    run_sql(filled, *(version.format(table, "9999") for table in tables))
    await assert_found(filled, "newer-schema")
    assert not (await look(filled, fix=True))["newer-schema"].fixed


async def test_an_index_of_a_table_is_gone(filled: Place) -> None:
    gone = {"costs_period_idx"}
    place = "costs." if filled.server is None else ""
    run_sql(filled, f"DROP INDEX {place}costs_period_idx")
    if filled.server is None:
        gone.add("templates_insert_changes")
        run_sql(filled, "DROP TRIGGER templates.templates_insert_changes")
    found = await assert_found(filled, "missing-structure")
    assert all(name in found["missing-structure"].where for name in gone)
    assert found["missing-structure"].count == len(gone)
    assert not (await look(filled, fix=True))["missing-structure"].fixed

    # The repair that is named.
    script = filled.open().migration_sql()
    if filled.server is None:
        with closing(attached(filled.folder)) as connection:
            for name in NAMES[1:]:  # The script attaches them itself.
                connection.execute(f"DETACH {name}")
            connection.executescript(
                script.replace("ATTACH DATABASE '", f"ATTACH DATABASE '{filled.folder}/")
            )
    else:
        run_sql(filled, script)
    await assert_found(filled)


async def test_a_server_that_is_away_is_an_error_and_no_finding() -> None:
    with pytest.raises(DatabaseConnectionError):
        await look(Place(settings={"postgres_url": "postgresql://postgres@127.0.0.1:1/nothing"}))


# SQLite


def overwritten(path: Path) -> None:
    path.write_text("This is a letter and no database. " * 1_000)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(6_000)


def page_damaged(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))


def index_lacks_rows(path: Path) -> None:
    """Let an index be of another column than it was made of: each page by itself is sound."""
    with closing(pysqlite.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'provider', 'id')"
            " WHERE name = 'costs_period_idx'"
        )


@pytest.mark.parametrize("damage", [overwritten, cut_short, page_damaged, index_lacks_rows])
async def test_a_damaged_file_is_named(files: Place, damage: Callable[[Path], None]) -> None:
    path = files.folder / "costs.db"
    damage(path)
    before = path.read_bytes()
    found = await assert_found(files, "damaged-file")
    assert found["damaged-file"].where == "costs.db"
    assert "restore" in found["damaged-file"].repair
    assert not (await look(files, fix=True))["damaged-file"].fixed
    assert path.read_bytes() == before


async def test_a_file_that_is_gone_is_not_made_anew(files: Place) -> None:
    (files.folder / "costs.db").unlink()
    for fix in (False, True):
        found = await look(files, fix=fix)
        assert [(each.where, each.fixed) for each in found.values()] == [("costs.db", False)]
    assert not (files.folder / "costs.db").exists()


async def test_a_restore_that_was_killed(files: Place, tmp_path: Path) -> None:
    async with files.open() as db:
        await back_up(db, tmp_path / "backup")
        await MemoryRepository(db).set("key", "later")
    # As it is at the moment in which the restore is decided.
    shutil.copytree(tmp_path / "backup", files.folder / ".restore-x", copy_function=shutil.copy)
    decided = {"copy": ".restore-x", "move_to": None}
    (files.folder / ".restore.json").write_text(json.dumps(decided))
    await assert_mended(files, "unfinished-restore")
    async with files.open() as db:
        item = await MemoryRepository(db).get("key")
    assert item is not None
    assert item.value == "value"


async def test_rights_of_folder_and_files(files: Place) -> None:
    (files.folder / "costs.db").chmod(0o644)
    (files.folder / "memory.db").chmod(0o660)
    files.folder.chmod(0o755)
    found = await look(files)
    assert found["file-modes"].where == "costs.db, memory.db"
    await assert_mended(files, "file-modes", "folder-mode")
    modes = {path.stat().st_mode & 0o777 for path in files.folder.glob("*.db")}
    assert (modes, files.folder.stat().st_mode & 0o777) == ({0o600}, 0o700)

    # A folder with other things in it is somebody's own.
    (files.folder / "README.md").touch()
    files.folder.chmod(0o755)
    await assert_found(files)
    files.folder.chmod(0o777)
    await assert_found(files, "folder-mode")
    assert not (await look(files, fix=True))["folder-mode"].fixed
    assert files.folder.stat().st_mode & 0o777 == 0o777


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /mnt/my\\040share rw,relatime shared:2 - nfs4 server:/share rw,vers=4.2
31 30 0:41 / /mnt/my\\040share/local rw - tmpfs tmpfs rw
32 22 0:42 / /mnt/twice rw - ext4 /dev/vdb rw
33 32 0:43 / /mnt/twice rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("folder", "system"),
    [
        ("/home/me/memory", "ext4"),
        ("/mnt/my share", "nfs4"),
        ("/mnt/my share/deep/memory", "nfs4"),
        ("/mnt/my shared", "ext4"),
        ("/mnt/my share/local/memory", "tmpfs"),
        ("/mnt/twice/memory", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_folder(folder: str, system: str) -> None:
    assert file_system(MOUNTS, Path(folder)) == system
    assert file_system("", Path(folder)) is None
    assert bool(NETWORK.fullmatch(system)) == system.startswith(("nfs", "fuse"))


def test_network_file_systems() -> None:
    for system in ("nfs", "cifs", "smb3", "9p", "ceph", "lustre", "fuse.glusterfs", "afs"):
        assert NETWORK.fullmatch(system), system
    for system in (
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "tmpfs",
        "overlay",
        "fuseblk",
        "apfs",
        "virtiofs",
    ):
        assert not NETWORK.fullmatch(system), system


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 9), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
        ((4, 0, 0), False),
    ],
)
def test_versions_of_sqlite(version: tuple[int, ...], has_it: bool) -> None:
    assert has_wal_bug(version) == has_it


def test_the_bug_is_one_of_write_ahead_logs(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for mode, names in (("wal", ["outdated-sqlite"]), ("truncate", [])):
        found = examine_surroundings(tmp_path, (3, 40, 1), mode)
        assert [finding.name for finding in found] == names


async def test_old_vectors_after_a_change_of_model(files: Place) -> None:
    wider = TinyEmbeddings(16)
    db = MetaDatabase(DatabaseSettings(**files.settings), embeddings=wider)
    async with db:
        await db.reembed()
        await assert_found(files, embeddings=wider)
    # As where the change was killed before it had removed them.
    run_sql(files, f"UPDATE templates SET new_embedding = x'00', new_embedding_model = '{MODEL}'")
    found = await look(files, embeddings=wider)
    assert found["old-vectors"].count == 3
    await assert_mended(files, "old-vectors", embeddings=wider)


ROWS = 5_000
"""Enough that an index is worth it."""


async def test_the_files_of_an_index(sqlite: Place, faults: Faults) -> None:
    async with sqlite.open(index_in_background=False):
        """Make the tables."""
    rows = [
        (f"tpl-{n:05}", struct.pack("<8f", *(1 + n * step % 97 for step in range(1, 9))), MODEL)
        for n in range(ROWS)
    ]
    with closing(attached(sqlite.folder)) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO templates (id, artifact_type, name, content, embedding, embedding_model)"
            " VALUES (?, 'agent', 'n', 'c', ?, ?)",
            rows,
        )
        connection.execute("COMMIT")
    await assert_mended(sqlite, "missing-index")

    folder = sqlite.folder / ".index" / "templates"
    names = ("vectors.f32", "vectors.i8", "graph.usearch", "rows.bin", "manifest.json")
    for name in names:
        (index,) = folder.glob("idx-*")
        data = bytearray((index / name).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (index / name).write_bytes(data)
        await assert_found(sqlite, "damaged-index")
        data[len(data) // 2] ^= 0xFF
        (index / name).write_bytes(data)
    await assert_found(sqlite)

    # As after a restore of older files.
    index.rename(folder / "idx-of-another-time")
    await assert_mended(sqlite, "damaged-index", "old-index")
    assert len(listed(folder, "idx-*")) == 1

    run_sql(sqlite, "UPDATE templates SET usage_count = 1 WHERE id < 'tpl-01500'")
    found = await assert_found(sqlite, "stale-index")
    assert (found["stale-index"].count, found["stale-index"].remedy) == (1_500, "index")
    ((kept,),) = sqlite.rows("SELECT count(embedding) FROM templates")
    faults.note(
        "A bit flipped in a file of the vector index, found by doctor and mended by --fix",
        where="SQLite",
        times=f"{len(names)} files",
        lost=f"{ROWS - int(kept)} vectors of {ROWS:,}",
    )


# PostgreSQL


def definition(place: Place, name: str = "templates_embedding_idx") -> Sequence[tuple[str, ...]]:
    return place.rows(f"SELECT oid FROM pg_class WHERE relname = '{name}'")


async def test_an_index_that_is_gone(tables: Place) -> None:
    run_sql(tables, "DROP INDEX templates_embedding_idx")
    await assert_found(tables, "missing-index")
    assert definition(tables) == []
    await assert_mended(tables, "missing-index")
    assert len(definition(tables)) == 1


def fail_to_build(place: Place, name: str, table: str) -> None:
    """Leave what a build leaves that was stopped or failed."""
    assert place.server is not None
    with pytest.raises(RuntimeError, match="could not create unique index"):
        place.server.sql(
            f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} (artifact_type)", place.database
        )


async def test_an_index_whose_building_failed(tables: Place) -> None:
    run_sql(tables, "DROP INDEX templates_embedding_idx")
    fail_to_build(tables, "templates_embedding_idx", "templates")
    await assert_mended(tables, "invalid-index")
    assert tables.rows(
        "SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam"
        " WHERE relname = 'templates_embedding_idx'"
    ) == [("hnsw",)]

    # What a stopped `paracle meta index` leaves goes; what is somebody's own is named.
    fail_to_build(tables, "templates_embedding_new_idx", "templates")
    await assert_mended(tables, "invalid-index")
    assert definition(tables, "templates_embedding_new_idx") == []
    fail_to_build(tables, "mine", "generations")
    found = await look(tables, fix=True)
    assert not found["invalid-index"].fixed
    assert "DROP INDEX CONCURRENTLY mine" in found["invalid-index"].repair


async def test_a_pgvector_that_was_never_updated(tables: Place) -> None:
    before = definition(tables)
    # Its scripts from there to here are empty, so this is what such a database has.
    run_sql(tables, "UPDATE pg_extension SET extversion = '0.8.2' WHERE extname = 'vector'")
    await assert_mended(tables, "outdated-pgvector")
    assert tables.rows("SELECT extversion >= '0.8.4' FROM pg_extension WHERE extname = 'vector'")
    assert definition(tables) != before  # It is made anew, as it may be damaged.

    run_sql(tables, "UPDATE pg_extension SET extversion = '0.8.4' WHERE extname = 'vector'")
    await assert_mended(tables, "pgvector-update")


async def test_a_role_that_may_not_update_pgvector(postgres18: PostgresServer) -> None:
    database = postgres18.create_database()
    url = postgres18.password_url_of(database)
    place = Place(settings={"postgres_url": url}, server=postgres18, database=database)
    run_sql(place, "CREATE EXTENSION vector")
    async with place.open():
        """Make the tables."""
    run_sql(place, "UPDATE pg_extension SET extversion = '0.8.2' WHERE extname = 'vector'")
    found = await look(place, fix=True)
    assert "ALTER EXTENSION vector UPDATE;" in str(found["outdated-pgvector"].result)
    assert not found["outdated-pgvector"].fixed


async def test_a_pgvector_that_is_gone(tables: Place) -> None:
    run_sql(tables, "DROP EXTENSION vector CASCADE")
    await assert_mended(tables, "missing-extension")
    assert tables.rows("SELECT count(*) FROM templates WHERE embedding IS NOT NULL") == [("3",)]


async def test_each_schema_is_looked_at_by_itself(tables: Place) -> None:
    async with tables.open(postgres_schema="team"):
        """Make the tables of a team beside the others."""
    run_sql(tables, "DROP INDEX public.costs_period_idx")
    await assert_found(tables, "missing-structure")
    await assert_found(tables, postgres_schema="team")
    run_sql(tables, "DROP INDEX team.templates_embedding_idx")
    await assert_mended(tables, "missing-index", postgres_schema="team")


async def test_a_key_that_is_gone(tables: Place) -> None:
    run_sql(tables, "ALTER TABLE feedback DROP CONSTRAINT feedback_generation_id_fkey")
    found = await assert_found(tables, "missing-structure")
    assert found["missing-structure"].where == "foreign key of feedback"


@pytest.mark.parametrize(
    ("installed", "available", "name", "fixable"),
    [
        (None, None, "missing-extension", False),
        (None, "0.8.5", "missing-extension", True),
        ("0.8.3", "0.8.3", "outdated-pgvector", False),
        ("0.7.4", "0.8.2", "outdated-pgvector", False),
        ("0.8.3", "0.8.4", "outdated-pgvector", True),
        ("0.8.3", "0.10.0", "outdated-pgvector", True),
        ("0.8.4", "0.10.0", "pgvector-update", True),
        ("0.8.4", "0.8.4", None, False),
        ("0.10.0", "0.8.4", None, False),
        ("0.8.4", None, None, False),
    ],
)
def test_versions_of_pgvector(
    installed: str | None, available: str | None, name: str | None, fixable: bool
) -> None:
    found = [*examine_extension(installed, available)]
    assert [(each.name, each.fixable) for each in found] == ([(name, fixable)] if name else [])
