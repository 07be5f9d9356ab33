from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from paracle_meta.migrations import runner
from tests.migrations.databases import FILES, sqlite_catalog, sqlite_engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.migrations.databases import Catalog


@pytest.fixture
def complete(tmp_path: Path) -> Catalog:
    """The catalog of six files that were migrated without a disturbance."""
    with sqlite_engine(tmp_path / "complete").connect() as connection:
        runner.upgrade(connection, FILES)
    return sqlite_catalog(tmp_path / "complete")
