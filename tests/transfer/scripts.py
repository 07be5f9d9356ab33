"""SQL exports for tests: made from a database or from records, and loaded by the real psql."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

from paracle_meta.backends.portable import encode
from paracle_meta.backends.postgresql.script import script
from paracle_meta.schema import TABLES, Kind, Table
from paracle_meta.validation import check_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from paracle_meta import MetaDatabase
    from paracle_meta.backends.collections import VectorSpace
    from paracle_meta.backends.portable import Row
    from tests.postgres import PostgresServer

LIMIT = 8 * 2**20
"""Bytes of a text: the default of the setting."""


def portable(table: Table[Any], record: Any) -> Row:
    """Return a record as a row."""
    values = check_record(table, record, LIMIT)
    return tuple(
        None
        if (value := values[column.name]) is None and column.kind is not Kind.JSON_TEXT
        else encode(column, value)
        for column in table.columns
    )


def script_of(
    rows: Iterable[tuple[Table[Any], Sequence[Row]]],
    spaces: Mapping[str, VectorSpace] = {},
    **options: bool,
) -> str:
    """Return a file with these rows."""
    writer = script(TABLES, spaces, **options)
    return "".join([writer.begin(), *(writer.rows(*batch) for batch in rows), writer.end()])


async def exported(db: MetaDatabase) -> str:
    """Return a file with all that a database holds."""
    async with (await db.backend()).bulk.snapshot() as snapshot:
        spaces = {}
        for table in TABLES:
            if found := await snapshot.vector_spaces(table):
                (spaces[table.name],) = found
        batches = [(table, rows) for table in TABLES async for rows in snapshot.rows(table)]
    return script_of(batches, spaces)


def psql(
    server: PostgresServer,
    url: str,
    text: str,
    *options: str,
    program: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Load a file as people do: ``psql DATABASE < FILE``."""
    answer = subprocess.run(
        [program or server.psql, "-X", "-q", *options, url],
        input=text.encode(),
        capture_output=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return subprocess.CompletedProcess(
        answer.args, answer.returncode, answer.stdout.decode(), answer.stderr.decode()
    )


def load(server: PostgresServer, url: str, text: str, *options: str, **others: Any) -> None:
    """Load a file without a word of complaint."""
    answer = psql(server, url, text, *options, **others)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def refusal(server: PostgresServer, url: str, text: str, *options: str, **others: Any) -> str:
    """Load a file that must be refused, and return the one line that says why."""
    answer = psql(server, url, text, *options, **others)
    assert (answer.returncode, answer.stdout) == (3, "")
    (line,) = answer.stderr.splitlines()
    return line
