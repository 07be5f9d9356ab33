"""`MetaDatabase`: one database, usable at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args, overload
from weakref import WeakValueDictionary

from paracle_meta.backends.collections import QueryVector
from paracle_meta.config import DatabaseSettings
from paracle_meta.connections import Connections
from paracle_meta.exceptions import ConfigurationError, InvalidValueError
from paracle_meta.filters import parse_filters
from paracle_meta.records import SearchMode
from paracle_meta.schema import COLLECTIONS
from paracle_meta.validation import check_page
from paracle_meta.values import check_dimensions, check_float, check_text, check_vector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from paracle_meta.backends.base import Backend, DatabaseStatus
    from paracle_meta.backends.session import MetaSession
    from paracle_meta.embeddings.base import EmbeddingProvider
    from paracle_meta.records import BestPracticeMatch, EmbeddingReport, TemplateMatch, Vector
    from paracle_meta.reembedding import Progress
    from paracle_meta.schema import Table

SEARCH_MODES: Final = get_args(SearchMode)


class MetaDatabase:
    """One database, opened and migrated at its first use.

    It can be used from several event loops, each with connections of its own, and in a forked
    process, which opens anew. After `close` the next call opens it again.

    Example:
        ```python
        from paracle_meta import GenerationRepository, MetaDatabase

        async with MetaDatabase("sqlite:///./memory") as db:
            print(await GenerationRepository(db).count())
        ```
    """

    def __init__(
        self,
        settings: DatabaseSettings | str,
        *,
        embeddings: EmbeddingProvider | None = None,
    ) -> None:
        """Remember what to open; nothing is opened yet.

        Args:
            settings: ``load_config().database``, or a URL: ``sqlite:///folder`` or
                ``postgresql://user@host/database``.
            embeddings: What turns texts into vectors, instead of the configured provider. It stays
                the caller's to close.

        Raises:
            ConfigurationError: The URL is neither SQLite's nor PostgreSQL's.
        """
        self._settings = (
            DatabaseSettings.from_url(settings) if isinstance(settings, str) else settings
        )
        self._connections = Connections(self._settings, embeddings)

    @property
    def settings(self) -> DatabaseSettings:
        """The settings that it was made with."""
        return self._settings

    async def __aenter__(self) -> Self:
        await self.backend()
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open and migrate the database now rather than at its first use.

        Raises:
            DatabaseConnectionError: The database cannot be reached.
            MigrationError: The schema is newer than this package, or could not be made.
            StorageError: A file is damaged, or not a database.
        """
        await self.backend()

    async def close(self) -> None:
        """Close the connections of this event loop. Safe to repeat."""
        await self._connections.close()

    async def backend(self) -> Backend:
        """Return the open backend of this event loop; what the repositories stand on."""
        return await self._connections.backend()

    def embeddings(self) -> EmbeddingProvider:
        """Return the embedding provider of this event loop.

        Raises:
            ConfigurationError: `enable_vectors` is off, or the provider lacks a setting.
        """
        if not self._settings.enable_vectors:
            raise ConfigurationError(
                "Vectors are switched off; set enable_vectors: true to search by meaning."
            )
        return self._connections.provider()

    @contextlib.asynccontextmanager
    async def session(self, *, write: bool = False) -> AsyncIterator[MetaSession]:
        """Open a SQLAlchemy session for SQL of your own, committed at the end of the block.

        It is an `AsyncSession` that takes plain SQL strings with named parameters as well. All six
        tables are in reach. An error rolls everything back.

        Args:
            write: On SQLite, take the right to write to all six files at once, so that what was
                read cannot change before it is written. On PostgreSQL it makes no difference.

        Raises:
            DatabaseBusyError: Another writer held a lock for longer than `busy_timeout`.
            QueryError: The database refused a statement.
        """
        backend = await self.backend()
        async with backend.session(write=write) as session:
            yield session

    async def migrate(self) -> list[str]:
        """Apply the migrations that are missing.

        Returns:
            The revisions that were applied, oldest first; empty where there was nothing to do.

        Raises:
            MigrationError: The schema is newer than this package, or could not be made.
        """
        async with self._unopened() as backend:
            return await backend.migrate()

    def migration_sql(self) -> str:
        """Return the SQL that `migrate` would run on an empty database, for a DBA to run instead.

        On PostgreSQL it is for psql; on SQLite for the ``sqlite3`` shell, started in the folder on
        ``generations.db``. Nothing is opened.
        """
        return self._connections.detached().migration_sql()

    async def status(self) -> DatabaseStatus:
        """Return the state of the database. Nothing is made or migrated."""
        async with self._unopened() as backend:
            return await backend.status()

    @contextlib.asynccontextmanager
    async def _unopened(self) -> AsyncIterator[Backend]:
        open_backend = self._connections.open_backend
        if open_backend is not None:
            yield open_backend
            return
        backend = self._connections.unopened()
        try:
            yield backend
        finally:
            await backend.close()

    async def build_index(self, collection: str | None = None) -> dict[str, int]:
        """Make the vector index of a collection, or of all, anew; searches go on meanwhile.

        On SQLite a process that searches a large collection does so by itself, in the background;
        this is for programs that run for a short time, and for after a restore.

        Args:
            collection: ``templates`` or ``best_practices``; None for both.

        Returns:
            For each collection how many rows the index has; 0 where they are so few that each one
            is compared.

        Raises:
            InvalidValueError: There is no such collection.
            ConfigurationError: `enable_vectors` is off.
            DatabaseBusyError: Another process makes it just now.
        """
        tables = _collections(collection)
        self.embeddings()
        backend = await self.backend()
        return {table.name: await backend.collections.build_index(table) for table in tables}

    async def reembed(
        self,
        collection: str | None = None,
        *,
        to: str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, EmbeddingReport]:
        """Make the vectors of a collection, or of all, anew with another model.

        Searches answer from the old ones until each record has a new one; then all are exchanged
        at once. A run that was stopped, by whatever, is finished by the next one.

        Args:
            collection: ``templates`` or ``best_practices``; None for both.
            to: The model as `status` names it, such as ``ollama/nomic-embed-text``; None for the
                configured one. Any other has to be configured before its vectors can be searched.
            progress: Called with a collection, how many records are done, and of how many.

        Raises:
            InvalidValueError: There is no such collection.
            ConfigurationError: `enable_vectors` is off, or there is no such model.
            EmbeddingProviderError: The provider went away.
            DatabaseBusyError: Another process changes the model of the same collection.
        """
        from paracle_meta.reembedding import Reembedding, provider_of

        tables = _collections(collection)
        async with provider_of(self._settings, to, self.embeddings()) as provider:
            work = Reembedding(await self.backend(), provider, self._settings, progress)
            return {table.name: await work.change_model(table) for table in tables}

    async def embed_missing(
        self, collection: str | None = None, *, progress: Progress | None = None
    ) -> dict[str, EmbeddingReport]:
        """Embed the records that were stored without a vector, as the provider was away.

        Arguments and errors are those of `reembed`.

        Raises:
            EmbeddingModelMismatchError: The stored vectors were made by another model.
        """
        from paracle_meta.reembedding import Reembedding

        tables = _collections(collection)
        provider = self.embeddings()
        work = Reembedding(await self.backend(), provider, self._settings, progress)
        return {table.name: await work.fill(table) for table in tables}

    @overload
    async def vector_search(
        self,
        collection: Literal["templates"],
        query: str | None = None,
        top_k: int = 10,
        *,
        mode: SearchMode = "vector",
        vector: Vector | None = None,
        filters: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
    ) -> list[TemplateMatch]: ...

    @overload
    async def vector_search(
        self,
        collection: Literal["best_practices"],
        query: str | None = None,
        top_k: int = 10,
        *,
        mode: SearchMode = "vector",
        vector: Vector | None = None,
        filters: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
    ) -> list[BestPracticeMatch]: ...

    @overload
    async def vector_search(
        self,
        collection: str,
        query: str | None = None,
        top_k: int = 10,
        *,
        mode: SearchMode = "vector",
        vector: Vector | None = None,
        filters: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
    ) -> list[Any]: ...

    async def vector_search(
        self,
        collection: str,
        query: str | None = None,
        top_k: int = 10,
        *,
        mode: SearchMode = "vector",
        vector: Vector | None = None,
        filters: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
    ) -> list[Any]:
        """Return the records closest in meaning to a text or vector, or that share its words.

        Args:
            collection: ``templates`` or ``best_practices``.
            query: The text to compare with.
            top_k: How many records at most, 1 to 10,000.
            mode: ``vector`` compares meanings: the configured provider embeds the query. ``text``
                compares words and needs no provider and no vectors. ``hybrid`` does both.
            vector: A ready vector, made by the configured model, instead of one made of the query:
                in mode ``vector`` in its place, in mode ``hybrid`` beside it.
            filters: Columns with a value or operators, ``{"artifact_type": "agent"}`` or
                ``{"quality_score": {"$gte": 8}}``; see `paracle_meta.filters.parse_filters`.
            min_similarity: Leave out what is less similar, -1 to 1, and what has no vector; not in
                mode ``text``, where no vectors are compared.

        Returns:
            `TemplateMatch` or `BestPracticeMatch` records, highest `score` first, ties by id. Where
            `top_k` records meet the filters, so many come back, unless `min_similarity` cuts them;
            in mode ``text`` only those that have a word of the query.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            ConfigurationError: `enable_vectors` is off, and the mode is not ``text``.
            EmbeddingProviderError: The query could not be embedded; mode ``text`` works without.
            EmbeddingModelMismatchError: The stored vectors were made by another model.
        """
        table = _collection(collection)
        conditions = parse_filters(table, filters)
        limit = check_page(top_k, "top_k")
        if min_similarity is not None:
            min_similarity = check_float("min_similarity", min_similarity)
            if not -1 <= min_similarity <= 1:
                raise InvalidValueError("min_similarity must be from -1 to 1.")
        _check_inputs(mode, query, vector, min_similarity)
        text = None
        if query is not None:
            text = check_text("query", query, self._settings.content_limit, required=True)
        query_vector = None if mode == "text" else await self._query_vector(text, vector)
        backend = await self.backend()
        return await backend.collections.search(
            table,
            conditions,
            vector=query_vector,
            text=None if mode == "vector" else text,
            limit=limit,
            min_similarity=min_similarity,
        )

    async def _query_vector(self, text: str | None, vector: Vector | None) -> QueryVector:
        provider = self.embeddings()
        if vector is not None:
            blob = check_vector("vector", vector)
            check_dimensions("vector", blob, provider.model_id, provider.dimensions)
        else:
            # _check_inputs has seen to it that there is one of the two.
            blob = check_vector("query", await provider.embed(text or ""))
        return QueryVector(blob, provider.model_id)


def _check_inputs(mode: Any, query: Any, vector: Any, min_similarity: float | None) -> None:
    if mode not in SEARCH_MODES:
        raise InvalidValueError(
            f"{mode!r:.60} is no mode of search; there are {', '.join(SEARCH_MODES)}."
        )
    if mode == "vector" and (query is None) == (vector is None):
        raise InvalidValueError(
            "vector_search needs either a query or a vector; with both, set mode='hybrid'."
        )
    if mode != "vector" and query is None:
        raise InvalidValueError(f"mode={mode!r} compares words: give the text as query.")
    if mode == "text" and (vector is not None or min_similarity is not None):
        raise InvalidValueError(
            "mode='text' compares no vectors: leave out vector and min_similarity, or set "
            "mode='hybrid'."
        )


def _collections(name: Any) -> list[Table[Any]]:
    return list(COLLECTIONS.values()) if name is None else [_collection(name)]


def _collection(name: Any) -> Table[Any]:
    table = COLLECTIONS.get(name) if isinstance(name, str) else None
    if table is None:
        raise InvalidValueError(
            f"{name!r:.60} is no collection; there are {' and '.join(COLLECTIONS)}."
        )
    return table


_shared: WeakValueDictionary[DatabaseSettings, MetaDatabase] = WeakValueDictionary()


def get_meta_database(settings: DatabaseSettings) -> MetaDatabase:
    """Return the one `MetaDatabase` of these settings in this process.

    Callers far apart share its connections this way. It lives as long as somebody holds it.

    Args:
        settings: ``load_config().database``.
    """
    database = _shared.get(settings)
    if database is None:
        database = _shared[settings] = MetaDatabase(settings)
    return database
