"""What a database must do for collections, the tables whose records can be searched.

Part of the contract in `base`: what is said there of every method holds here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from paracle_meta.filters import Condition
    from paracle_meta.schema import Table

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """The vectors that are comparable with one another.

    Attributes:
        model: The id of the embedding model.
        dimensions: Numbers a vector.
    """

    model: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A vector to search by.

    Attributes:
        blob: Little-endian float32.
        model: The model that made it.
    """

    blob: bytes
    model: str


@dataclass(frozen=True, slots=True)
class NewVector:
    """A vector that was made of a stored record.

    Attributes:
        record_id: Of which one.
        texts: What it was made of: the values of the columns in `Table.embedded`.
        blob: Little-endian float32.
    """

    record_id: str
    texts: tuple[str | None, ...]
    blob: bytes

    @classmethod
    def of(cls, table: Table[Any], record: Any, blob: bytes) -> NewVector:
        """Return the vector of a record as it was read."""
        return cls(record.id, tuple(getattr(record, name) for name in table.embedded), blob)


class Collections(Protocol):
    """The searchable tables of one open database."""

    async def search(
        self,
        table: Table[R],
        conditions: Sequence[Condition],
        *,
        vector: QueryVector | None,
        text: str | None,
        limit: int,
        min_similarity: float | None,
    ) -> list[R]:
        """Return the records closest to a vector, to the words of a text, or to both.

        Args:
            table: A collection.
            conditions: All must hold; as many as `limit` are returned wherever so many hold them
                and, in a search by words alone, have one of the words.
            vector: Compare meanings; records without a vector are found by words only.
            text: Compare words.
            limit: Most records to return.
            min_similarity: Leave out what is less similar to the vector; None leaves nothing out.

        Returns:
            Records of the table's match type, best first, ties by id: by ``similarity = 1 - cosine
            distance`` where a vector is given, by BM25 where a text is, by `fusion` of the two
            where both are.

        Raises:
            EmbeddingModelMismatchError: The collection holds vectors of another model.
        """

    async def build_index(self, table: Table[Any]) -> int:
        """Make the index of a collection's vectors anew; searches go on meanwhile.

        Returns:
            How many rows it has; 0 where they are so few that each is compared.

        Raises:
            DatabaseBusyError: Another process makes it just now.
        """

    async def without_vector(self, table: Table[R], *, limit: int, after: str | None) -> list[R]:
        """Return records without a vector in the order of their ids.

        Args:
            table: A collection.
            limit: Most records to return.
            after: Only those whose ids come after this one.
        """

    async def store_vectors(
        self, table: Table[Any], vectors: Sequence[NewVector], *, model: str
    ) -> int:
        """Give records their vectors, and return how many got one.

        One that was deleted meanwhile, or has got another text or a vector, is left as it is.

        Raises:
            EmbeddingModelMismatchError: The collection holds vectors of another model.
        """

    async def cached_vectors(
        self, table: Table[Any], model: str, hashes: Collection[bytes]
    ) -> dict[bytes, bytes]:
        """Return the vectors that the cache of a collection has for texts with these hashes."""

    async def cache_vectors(
        self, table: Table[Any], model: str, vectors: Mapping[bytes, bytes], *, keep: int
    ) -> None:
        """Add vectors by the hash of their text to the cache, of which only the newest stay.

        Args:
            table: A collection.
            model: The model that made the vectors.
            vectors: By the hash of their text; one that is there already stays as it is.
            keep: Most to keep, of all models together.
        """

    def change_of_model(
        self, table: Table[R], space: VectorSpace
    ) -> AbstractAsyncContextManager[ChangeOfModel[R]]:
        """Begin a change of a collection's embedding model, or go on with one that was stopped.

        What a change to another model had got done is thrown away. Vectors that are of the new
        model already count as new ones, also those that are stored while the change goes on.

        Raises:
            DatabaseBusyError: Another process is at it, or uses the table for long.
        """


class ChangeOfModel(Protocol[R]):
    """New vectors, kept beside those that answer until they take their place.

    What was stored is kept whatever happens to the process, and a record whose text is changed
    loses its new vector, whoever changes it.
    """

    async def remaining(self) -> int:
        """Return how many records have no new vector."""

    async def pending(self, *, limit: int, after: str | None) -> list[R]:
        """Return records without a new vector in the order of their ids.

        Args:
            limit: Most records to return.
            after: Only those whose ids come after this one.
        """

    async def store(self, vectors: Sequence[NewVector]) -> None:
        """Keep new vectors.

        One is dropped where its record was deleted meanwhile, or has got another text or a vector
        of the new model.
        """

    async def prepare(self) -> None:
        """Do what would take long in the switch: on PostgreSQL, index the new vectors.

        On SQLite, copy those that are of the new model already to where the others are.
        """

    async def switch(self, without: Collection[str]) -> bool:
        """Let the new vectors take the place of the old ones, in one transaction.

        The columns exchange their names, so it takes milliseconds, however many there are: on
        SQLite writers wait for it, on PostgreSQL everybody. On SQLite the old vectors are removed
        afterwards, a batch at a time, and the index is to be made anew.

        Args:
            without: Records that shall have no vector if they lack a new one, as none could be
                made.

        Returns:
            False, and nothing is changed, where others lack a new vector.

        Raises:
            DatabaseBusyError: Others use the table for long; repeat the call.
        """
