"""Six tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from paracle_meta.tables import (
    JSON_OBJECT,
    LABEL,
    TAGS,
    TEXT,
    CurrentDate,
    CurrentTimestamp,
    Embedding,
    JsonText,
    UtcTimestamp,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations import Operations

revision = "0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """Create the tables and their indexes."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    postgresql = op.get_context().dialect.name == "postgresql"

    def create_table(name: str, *items: sa.schema.SchemaItem) -> None:
        op.create_table(name, *items, schema=schemas[name], if_not_exists=True)

    def create_index(
        name: str, table: str, columns: list[str | sa.TextClause], **options: Any
    ) -> None:
        op.create_index(name, table, columns, schema=schemas[table], if_not_exists=True, **options)

    # On PostgreSQL the width of a vector depends on the configured model, so the column is
    # provisioned beside the history.
    def embedding() -> list[sa.Column[Any]]:
        return [] if postgresql else [sa.Column("embedding", Embedding())]

    create_table(
        "generations",
        sa.Column("id", LABEL, primary_key=True),
        sa.Column("artifact_type", LABEL, nullable=False),
        sa.Column("name", LABEL, nullable=False),
        sa.Column("description", TEXT),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("quality_score", sa.Float()),
        sa.Column("provider", LABEL),
        sa.Column("model", LABEL),
        sa.Column("tokens_used", sa.Integer()),
        sa.Column("cost", sa.Float()),
        sa.Column("created_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.Column("metadata", JSON_OBJECT),
        sa.Column("updated_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.CheckConstraint(
            "quality_score >= 0 AND quality_score <= 10", name="generations_quality_score_check"
        ),
        sa.CheckConstraint("tokens_used >= 0", name="generations_tokens_used_check"),
        sa.CheckConstraint("cost >= 0 AND cost <= 1e+09", name="generations_cost_check"),
    )
    create_index("generations_newest_idx", "generations", ["created_at", "id"])
    create_index(
        "generations_artifact_type_idx", "generations", ["artifact_type", "created_at", "id"]
    )
    create_index("generations_provider_idx", "generations", ["provider", "created_at", "id"])

    create_table(
        "templates",
        sa.Column("id", LABEL, primary_key=True),
        sa.Column("artifact_type", LABEL, nullable=False),
        sa.Column("name", LABEL, nullable=False),
        sa.Column("pattern", LABEL),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("quality_score", sa.Float()),
        sa.Column("usage_count", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("source", LABEL),
        sa.Column("created_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        *embedding(),
        sa.Column("updated_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.Column("embedding_model", LABEL),
        sa.CheckConstraint(
            "quality_score >= 0 AND quality_score <= 10", name="templates_quality_score_check"
        ),
        sa.CheckConstraint("usage_count >= 0", name="templates_usage_count_check"),
    )
    create_index("templates_newest_idx", "templates", ["created_at", "id"])
    create_index("templates_artifact_type_idx", "templates", ["artifact_type", "created_at", "id"])
    create_index("templates_embedding_model_idx", "templates", ["embedding_model"])

    # SQLite's tables are in different files, which cannot refer to one another.
    place = schemas["generations"]
    generation_id = f"{place}.generations.id" if place else "generations.id"
    foreign_key = sa.ForeignKeyConstraint(
        ["generation_id"], [generation_id], name="feedback_generation_id_fkey"
    )
    create_table(
        "feedback",
        sa.Column("id", LABEL, primary_key=True),
        sa.Column("generation_id", LABEL, nullable=False),
        sa.Column("rating", sa.Integer(), nullable=False),
        sa.Column("comment", TEXT),
        sa.Column("created_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.Column("updated_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.CheckConstraint("rating >= 1 AND rating <= 5", name="feedback_rating_check"),
        *([foreign_key] if postgresql else []),
    )
    create_index("feedback_newest_idx", "feedback", ["created_at", "id"])
    create_index("feedback_generation_id_idx", "feedback", ["generation_id", "created_at", "id"])

    create_table(
        "costs",
        sa.Column("id", LABEL, primary_key=True),
        sa.Column("provider", LABEL, nullable=False),
        sa.Column("model", LABEL, nullable=False),
        sa.Column("input_tokens", sa.Integer()),
        sa.Column("output_tokens", sa.Integer()),
        sa.Column("cost", sa.Float()),
        sa.Column("period_type", LABEL, nullable=False, server_default="daily"),
        sa.Column("period_start", sa.Date(), nullable=False, server_default=CurrentDate()),
        sa.Column("created_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.Column("updated_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.CheckConstraint("input_tokens >= 0", name="costs_input_tokens_check"),
        sa.CheckConstraint("output_tokens >= 0", name="costs_output_tokens_check"),
        sa.CheckConstraint("cost >= 0 AND cost <= 1e+09", name="costs_cost_check"),
        sa.CheckConstraint("period_type IN ('daily', 'monthly')", name="costs_period_type_check"),
    )
    create_index("costs_newest_idx", "costs", ["created_at", "id"])
    create_index("costs_period_idx", "costs", ["period_start", "period_type", "provider", "model"])

    create_table(
        "memory",
        sa.Column("id", LABEL, primary_key=True),
        sa.Column("session_id", LABEL),
        sa.Column("key", LABEL, nullable=False),
        sa.Column("value", JsonText(), nullable=False),
        sa.Column("scope", LABEL, nullable=False, server_default="session"),
        sa.Column("created_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.Column("expires_at", UtcTimestamp()),
        sa.Column("updated_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
    )
    create_index("memory_newest_idx", "memory", ["created_at", "id"])
    create_index(
        "memory_key_idx",
        "memory",
        ["scope", sa.text("COALESCE(session_id, '')"), "key"],
        unique=True,
    )
    create_index("memory_expires_at_idx", "memory", ["expires_at"])

    create_table(
        "best_practices",
        sa.Column("id", LABEL, primary_key=True),
        sa.Column("category", LABEL, nullable=False),
        sa.Column("title", LABEL, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("tags", TAGS),
        sa.Column("quality_score", sa.Float()),
        sa.Column("usage_count", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        *embedding(),
        sa.Column("updated_at", UtcTimestamp(), nullable=False, server_default=CurrentTimestamp()),
        sa.Column("embedding_model", LABEL),
        sa.CheckConstraint(
            "quality_score >= 0 AND quality_score <= 10", name="best_practices_quality_score_check"
        ),
        sa.CheckConstraint("usage_count >= 0", name="best_practices_usage_count_check"),
    )
    create_index("best_practices_newest_idx", "best_practices", ["created_at", "id"])
    create_index("best_practices_category_idx", "best_practices", ["category", "created_at", "id"])
    create_index("best_practices_embedding_model_idx", "best_practices", ["embedding_model"])
    if postgresql:  # SQLite keeps tags as a JSON list and has no kind of index for it.
        create_index("best_practices_tags_idx", "best_practices", ["tags"], postgresql_using="gin")


def downgrade(op: Operations) -> None:
    """Drop the tables with all that is in them."""
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    for table in ("best_practices", "memory", "costs", "feedback", "templates", "generations"):
        op.drop_table(table, schema=schemas[table], if_exists=True)
