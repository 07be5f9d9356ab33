"""The fixed statements of an SQL export: what stands before and after its rows.

Nothing here depends on what is exported. What a file has to say about itself, the models and
widths of its vectors, it puts as values into ``paracle_meta_vectors``, and the blocks of code read
it there.

`script_reader` finds its way by the quotes, so those on a line are in pairs, in comments too.
"""

from __future__ import annotations

from typing import Final

from paracle_meta.backends.postgresql.provision import (
    BUILD_MEMORY,
    MAX_HALF_DIMENSIONS,
    MAX_WHOLE_DIMENSIONS,
)
from paracle_meta.backends.postgresql.schema import LOCK_KEY, MINIMUM_SERVER
from paracle_meta.config import DatabaseSettings
from paracle_meta.migrations import HEAD, VERSION_TABLE

FORMAT: Final = 1
"""Of the file; a reader refuses a later one."""

TITLE: Final = "-- paracle_meta export, format "
"""How the first line begins; the format follows."""

ROWS: Final = "-- Rows\n"
"""The line after which statements are those of `INSERT` only."""

END_OF_ROWS: Final = "-- End of the rows\n"
"""The line after the last of them; a file without it was cut."""

CONFLICT: Final = "ON CONFLICT DO NOTHING;\n"
"""The last line of each such statement: what is stored stays as it is."""

_DEFAULTS: Final = DatabaseSettings()
_HNSW: Final = f"(m = {_DEFAULTS.hnsw_m}, ef_construction = {_DEFAULTS.hnsw_ef_construction})"

# Commands of psql stand here and nowhere else, and none of them is younger than psql 15.
PREAMBLE: Final = rf"""{TITLE}{FORMAT}
-- Records of paracle_meta, for PostgreSQL {MINIMUM_SERVER // 10_000} or later. To load them:
--     psql NAME_OF_THE_DATABASE < THIS_FILE
-- It makes what is missing of the tables and adds what is not stored yet, by its id. What is stored
-- there stays as it is. All is done in one transaction: where a line fails, nothing has changed.
\set ON_ERROR_STOP on
\set VERBOSITY terse
\encoding UTF8
SET standard_conforming_strings = on;
"""

BEGIN: Final = """
BEGIN;
SET LOCAL client_min_messages = warning;

-- Whoever has psql commit at the end of its input would commit a part of a file that was cut: the
-- commit fails as long as the end is not reached.
CREATE TEMPORARY TABLE paracle_meta_end (reached boolean PRIMARY KEY) ON COMMIT DROP;
CREATE TEMPORARY TABLE paracle_meta_file (
    needs_pgvector boolean NOT NULL,
    whole boolean CONSTRAINT the_file_is_whole REFERENCES paracle_meta_end
        DEFERRABLE INITIALLY DEFERRED
) ON COMMIT DROP;
CREATE TEMPORARY TABLE paracle_meta_vectors (
    collection text PRIMARY KEY,
    model text NOT NULL,
    dimensions integer NOT NULL,
    is_new boolean NOT NULL DEFAULT false
) ON COMMIT DROP;
"""

WITH_PGVECTOR: Final = (
    "INSERT INTO paracle_meta_file (needs_pgvector, whole) VALUES (true, true);\n"
)
WITHOUT_PGVECTOR: Final = (
    "INSERT INTO paracle_meta_file (needs_pgvector, whole) VALUES (false, true);\n"
)

VECTORS: Final = "INSERT INTO paracle_meta_vectors (collection, model, dimensions) VALUES\n"

CHECKS: Final = f"""
DO $$
DECLARE
    stamp text;
    extension_schema text;
BEGIN
    IF current_setting('server_version_num')::integer < {MINIMUM_SERVER} THEN
        RAISE EXCEPTION 'This server is PostgreSQL %; paracle_meta needs % or later.',
            current_setting('server_version'), {MINIMUM_SERVER // 10_000};
    END IF;
    IF current_schema() IS NULL THEN
        RAISE EXCEPTION 'None of the schemas in the search_path exists: %. Make one, then load the '
            'file again.', current_setting('search_path');
    END IF;
    -- A limit that is meant for the statements of an application.
    PERFORM set_config(name, '0', true) FROM pg_settings WHERE name IN (
        'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout'
    );
    IF NOT pg_try_advisory_xact_lock({LOCK_KEY}) THEN
        RAISE EXCEPTION 'Another process migrates this database just now or loads such a file. '
            'Load this one when it is done.';
    END IF;
    IF to_regclass(format('%I.{VERSION_TABLE}', current_schema())) IS NOT NULL THEN
        EXECUTE format('SELECT max(version_num) FROM %I.{VERSION_TABLE}', current_schema())
            INTO stamp;
        IF stamp COLLATE "C" > '{HEAD}' THEN
            RAISE EXCEPTION 'The tables of this database are at revision %, and this file is of '
                'revision {HEAD}: they were made by a newer paracle_meta. Export again with that '
                'version.', stamp;
        END IF;
    END IF;
    IF NOT (SELECT needs_pgvector FROM paracle_meta_file) THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector') THEN
        IF NOT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'vector') THEN
            RAISE EXCEPTION 'pgvector is not installed on this server, and search by meaning needs '
                'it. Install it there (on Debian the package postgresql-%-pgvector), then load the '
                'file again.', current_setting('server_version_num')::integer / 10000;
        END IF;
        BEGIN
            -- Where each tenant has a schema, all of them share it.
            IF EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'public') THEN
                CREATE EXTENSION vector SCHEMA public;
            ELSE
                CREATE EXTENSION vector;
            END IF;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'The role % may not create the extension pgvector. Have a DBA run, in '
                'the database %: CREATE EXTENSION vector; then load the file again.',
                current_user, current_database();
        END;
    END IF;
    -- Make its names visible, wherever it was installed.
    SELECT nspname INTO extension_schema
        FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
        WHERE extname = 'vector';
    IF extension_schema <> ALL (current_schemas(false)) THEN
        PERFORM set_config('search_path',
            format('%s, %I', current_setting('search_path'), extension_schema), true);
    END IF;
END $$;

"""

COLUMNS: Final = """
DO $$
DECLARE
    space record;
    width integer;
    stored text;
BEGIN
    FOR space IN SELECT collection, model, dimensions FROM paracle_meta_vectors LOOP
        SELECT atttypmod INTO width FROM pg_attribute
            WHERE attrelid = space.collection::regclass AND attname = 'embedding'
            AND NOT attisdropped;
        IF width IS NOT NULL THEN
            -- Another model first, if there is one.
            EXECUTE format('SELECT coalesce(embedding_model, ''unknown'') FROM %I'
                ' WHERE embedding IS NOT NULL'
                ' ORDER BY embedding_model IS NOT DISTINCT FROM $1 LIMIT 1', space.collection)
                INTO stored USING space.model;
            IF stored <> space.model THEN
                RAISE EXCEPTION 'The table % holds vectors of the model %, and this file has those '
                    'of %, which cannot be compared with them. Change the model of one side with '
                    '"paracle meta reembed", then export or load again.',
                    space.collection, to_json(stored), to_json(space.model);
            ELSIF stored IS NOT NULL AND width <> space.dimensions THEN
                RAISE EXCEPTION 'The table % holds vectors of the model % with % numbers, and this '
                    'file has those with %. Make one side anew with "paracle meta reembed", then '
                    'export or load again.',
                    space.collection, to_json(stored), width, space.dimensions;
            ELSIF width <> space.dimensions THEN
                EXECUTE format('ALTER TABLE %I DROP COLUMN embedding', space.collection);
                width := NULL;
            END IF;
        END IF;
        IF width IS NULL THEN
            EXECUTE format('ALTER TABLE %I ADD COLUMN embedding vector(%s)',
                space.collection, space.dimensions);
            UPDATE paracle_meta_vectors SET is_new = true WHERE collection = space.collection;
        END IF;
    END LOOP;
END $$;

"""

INDEXES: Final = f"""
DO $$
DECLARE
    space record;
BEGIN
    IF pg_size_bytes(current_setting('maintenance_work_mem')) < pg_size_bytes('{BUILD_MEMORY}') THEN
        PERFORM set_config('max_parallel_maintenance_workers', '0', true);
        PERFORM set_config('maintenance_work_mem', '{BUILD_MEMORY}', true);
    END IF;
    -- Columns that were there already have the index that was wanted for them.
    FOR space IN SELECT collection, dimensions FROM paracle_meta_vectors WHERE is_new LOOP
        IF space.dimensions <= {MAX_WHOLE_DIMENSIONS} THEN
            EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I'
                ' USING hnsw (embedding vector_cosine_ops) WITH {_HNSW}',
                space.collection || '_embedding_idx', space.collection);
        ELSIF space.dimensions <= {MAX_HALF_DIMENSIONS} THEN
            EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I'
                ' USING hnsw ((l2_normalize(embedding)::halfvec(%s)) halfvec_cosine_ops)'
                ' WITH {_HNSW}',
                space.collection || '_embedding_idx', space.collection, space.dimensions);
        END IF;
    END LOOP;
END $$;
"""

COMMIT: Final = """
INSERT INTO paracle_meta_end (reached) VALUES (true);
COMMIT;
"""
