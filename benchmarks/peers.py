"""Other embedded stores, used as their documentation says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.systems import TOP_K, Documents, System, name_of, text_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Zvec(System):
    """zvec with its default graph: m 50, ef_construction 500, ef 300."""

    title = "zvec (HNSW)"
    package = "zvec"

    def build(self, documents: Documents) -> None:
        import zvec

        usage = zvec.FieldSchema(
            "usage",
            zvec.DataType.INT64,
            index_param=zvec.InvertIndexParam(enable_range_optimization=True),
        )
        texts = [zvec.FieldSchema(name, zvec.DataType.STRING) for name in ("name", "content")]
        vector = zvec.VectorSchema(
            "embedding",
            zvec.DataType.VECTOR_FP32,
            documents.dimensions,
            index_param=zvec.HnswIndexParam(metric_type=zvec.MetricType.IP),
        )
        schema = zvec.CollectionSchema("documents", fields=[usage, *texts], vectors=[vector])
        self._collection = zvec.create_and_open(str(self.folder), schema)
        for batch in documents.batches():
            added = self._collection.insert(
                [
                    zvec.Doc(
                        id=str(n),
                        vectors={"embedding": documents.vectors[n]},
                        fields={
                            "usage": int(documents.usage[n]),
                            "name": name_of(n),
                            "content": text_of(n),
                        },
                    )
                    for n in batch
                ]
            )
            if not all(status.ok() for status in added):
                raise RuntimeError("zvec refused a document.")
        self._collection.flush()
        self._collection.optimize()

    def open(self) -> None:
        import zvec

        self._collection = zvec.open(str(self.folder))

    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        import zvec

        found = self._collection.query(
            zvec.Query(field_name="embedding", vector=query),
            topk=TOP_K,
            filter=None if below is None else f"usage < {below}",
            output_fields=["usage", "name", "content"],
        )
        return [int(document.id) for document in found]

    def close(self) -> None:
        self._collection.close()


class Chroma(System):
    """Chroma in this process, on files."""

    title = "Chroma"
    package = "chromadb"

    def _client(self) -> Any:
        import chromadb
        from chromadb.config import Settings

        return chromadb.PersistentClient(
            str(self.folder), settings=Settings(anonymized_telemetry=False)
        )

    def build(self, documents: Documents) -> None:
        self._collection = self._client().create_collection(
            "documents", embedding_function=None, configuration={"hnsw": {"space": "ip"}}
        )
        for batch in documents.batches():
            self._collection.add(
                ids=[str(n) for n in batch],
                embeddings=documents.vectors[batch.start : batch.stop],
                documents=[text_of(n) for n in batch],
                metadatas=[{"name": name_of(n), "usage": int(documents.usage[n])} for n in batch],
            )

    def open(self) -> None:
        self._collection = self._client().get_collection("documents", embedding_function=None)

    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        found = self._collection.query(
            query_embeddings=[query],
            n_results=TOP_K,
            where=None if below is None else {"usage": {"$lt": below}},
            include=["documents", "metadatas", "distances"],
        )
        return [int(record_id) for record_id in found["ids"][0]]


class LanceDBFlat(System):
    """LanceDB that compares every vector."""

    title = "LanceDB (flat)"
    package = "lancedb"

    def build(self, documents: Documents) -> None:
        import lancedb
        import pyarrow as pa
        from lancedb.index import BTree

        rows = range(len(documents.usage))
        data = pa.table(
            {
                "id": pa.array(rows, pa.int64()),
                "name": [name_of(n) for n in rows],
                "content": [text_of(n) for n in rows],
                "usage": documents.usage,
                "embedding": pa.FixedSizeListArray.from_arrays(
                    pa.array(documents.vectors.reshape(-1)), documents.dimensions
                ),
            }
        )
        self._table = lancedb.connect(self.folder).create_table("documents", data)
        self._table.create_index("usage", config=BTree())
        self._index()

    def _index(self) -> None:
        pass

    def open(self) -> None:
        import lancedb

        self._table = lancedb.connect(self.folder).open_table("documents")

    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        asked = self._table.search(query, vector_column_name="embedding").distance_type("dot")
        if below is not None:
            asked = asked.where(f"usage < {below}", prefilter=True)
        asked = asked.select(["id", "name", "content", "usage", "_distance"])
        return [row["id"] for row in asked.limit(TOP_K).to_list()]


class LanceDB(LanceDBFlat):
    """LanceDB with graphs over bytes in partitions."""

    title = "LanceDB (IVF_HNSW_SQ)"

    def _index(self) -> None:
        from lancedb.index import HnswSq

        self._table.create_index("embedding", config=HnswSq(distance_type="dot"))


class SqliteVec(System):
    """sqlite-vec, which compares every vector."""

    title = "sqlite-vec"
    package = "sqlite-vec"

    def open(self) -> None:
        # The standard module of many installations cannot load extensions.
        import pysqlite3
        import sqlite_vec

        self.folder.mkdir(exist_ok=True)
        self._connection = pysqlite3.connect(str(self.folder / "documents.db"))
        self._connection.enable_load_extension(True)
        sqlite_vec.load(self._connection)

    def build(self, documents: Documents) -> None:
        self.open()
        self._connection.execute(
            "CREATE VIRTUAL TABLE documents USING vec0(id INTEGER PRIMARY KEY, "
            f"embedding FLOAT[{documents.dimensions}], usage INTEGER, +name TEXT, +content TEXT)"
        )
        for batch in documents.batches():
            self._connection.executemany(
                "INSERT INTO documents (id, embedding, usage, name, content) "
                "VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        n,
                        documents.vectors[n].tobytes(),
                        int(documents.usage[n]),
                        name_of(n),
                        text_of(n),
                    )
                    for n in batch
                ],
            )
            self._connection.commit()

    def search(self, query: NDArray[np.float32], below: int | None) -> list[int]:
        limit = "" if below is None else " AND usage < ?"
        found = self._connection.execute(
            "SELECT id, name, content, usage, distance FROM documents "
            f"WHERE embedding MATCH ? AND k = ?{limit}",
            (query.tobytes(), TOP_K, *(() if below is None else (below,))),
        ).fetchall()
        return [row[0] for row in found]

    def close(self) -> None:
        self._connection.close()
