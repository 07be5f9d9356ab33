"""Vectors beside those that answer: a cache, and those of a model that is to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "0004"
down_revision = "0003"


def upgrade(op: Operations) -> None:
    """TODO."""


def downgrade(op: Operations) -> None:
    """TODO."""
