from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings

from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    from paracle_meta import MetaDatabase


def load_profile() -> None:
    """Load the settings of hypothesis for tests on real databases.

    No deadline: the first call of an example may wait for a server. A failure prints the blob that
    repeats it, so that one seen in CI can be repeated anywhere.
    """
    settings.register_profile(
        "databases",
        deadline=None,
        print_blob=True,
        # All but "explain", which runs a failing example many times more.
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        # The databases are opened once a test and emptied before each example.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    settings.load_profile("databases")


async def delete_everything(*databases: MetaDatabase) -> None:
    """Delete all records, feedback before the generations that it refers to."""
    for database in databases:
        async with database.session(write=True) as session:
            for table in reversed(TABLES):
                await session.execute(f"DELETE FROM {table.name}")
