from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.places import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    return Place(settings={"sqlite_dir": str(tmp_path / "files")})


@pytest.fixture
def postgresql(postgres18: PostgresServer) -> Place:
    database = postgres18.create_database()
    return Place(
        settings={"postgres_url": postgres18.url_of(database)},
        server=postgres18,
        database=database,
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty database, on each of the two in turn."""
    where: Place = request.getfixturevalue(request.param)
    return where
