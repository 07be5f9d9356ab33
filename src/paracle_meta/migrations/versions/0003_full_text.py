"""The words of the searchable records, for searches by words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0003"
down_revision = "0002"


def upgrade(op: Operations) -> None:
    """TODO."""


def downgrade(op: Operations) -> None:
    """TODO."""
