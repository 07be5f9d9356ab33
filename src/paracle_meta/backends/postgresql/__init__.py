"""PostgreSQL with pgvector, by asyncpg."""
