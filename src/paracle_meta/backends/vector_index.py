"""A segment with a graph, in files that are written once and then only read.

A folder holds:

``graph.usearch``   an HNSW graph (Malkov and Yashunin, arXiv:1603.09320) over int8 vectors
``vectors.f32``     the unit vectors, row by row, for comparing some of them in float32
``rows.npz``        the rows' ids, filterable columns, and a checksum of each row's vector
``manifest.json``   what it is of, with the size and checksum of the other files

The folder is a cache. Whatever is wrong with it is noticed and raised as `DamagedIndexError`, and
the caller goes on without it: small files are checked whole when they are opened, and a row of
``vectors.f32`` when it is used, as reading all of them would take longer than the search.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from paracle_meta.backends.vector_columns import HeldColumn, join
from paracle_meta.backends.vector_segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT: Final = 1
"""Of the files; a cache of another format is made anew."""

CONNECTIVITY: Final = 16
"""Edges a node: with 32 the files are larger and the search no better in the same time."""

EXPANSION_ADD: Final = 128
"""Candidates kept while a vector is added."""

EXPANSION_SEARCH: Final = 128
"""Candidates kept while searching."""

CHUNK: Final = 256
"""Vectors added at once: some tens of milliseconds, after which others get their turn."""


class DamagedIndexError(Exception):
    """The files are not those that were written. Never reaches a user: the cache is made anew."""


class UsearchGraph:
    """A graph in a file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        from usearch.index import Index

        graph = Index.restore(str(path), view=True)
        if graph is None:
            raise DamagedIndexError(str(path))
        self._graph = graph

    def __len__(self) -> int:
        return len(self._graph)

    def near(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """See `vector_segment.Graph`."""
        found: NDArray[np.int64] = self._graph.search(query, count, threads=1).keys.astype(np.int64)
        return found


class MappedVectors:
    """Vectors in a file; each row is checked when it is read."""

    def __init__(self, path: Path, dimensions: int, checks: NDArray[np.uint32]) -> None:
        self._matrix = np.memmap(path, dtype="<f4", mode="r", shape=(len(checks), dimensions))
        self._checks = checks

    def __len__(self) -> int:
        return len(self._checks)

    def products(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """See `vector_segment.Vectors`."""
        if rows is None:
            rows = np.arange(len(self))
        products = np.empty(len(rows), dtype=np.float32)
        # In pieces that stay in the processor's cache between the check and the product.
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            matrix = self._matrix[some]
            if not np.array_equal(checksums(matrix), self._checks[some]):
                raise DamagedIndexError(str(self._matrix.filename))
            np.matmul(matrix, query, out=products[start : start + CHUNK])
        return products

    def matrix(self) -> NDArray[np.float32]:
        """See `vector_segment.Vectors`."""
        return self._matrix


def checksums(matrix: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return one number a row that changes with any of its bits: the exclusive or of its words."""
    result: NDArray[np.uint32] = np.bitwise_xor.reduce(matrix.view(np.uint32), axis=1)
    return result


class IndexWriter:
    """Writes an index, row by row in bytewise order of the ids."""

    def __init__(self, folder: Path, dimensions: int) -> None:
        from usearch.index import Index

        self._folder = folder
        self._graph = Index(
            ndim=dimensions,
            metric="ip",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )
        self._dimensions = dimensions
        folder.mkdir(mode=0o700, parents=True)
        self._vectors = (folder / "vectors.f32").open("xb")
        self._ids: list[NDArray[np.bytes_]] = []
        self._columns: list[Mapping[str, HeldColumn]] = []
        self._checks: list[NDArray[np.uint32]] = []
        self._rows = 0

    def abandon(self) -> None:
        """Remove what was written."""
        self._vectors.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(
        self,
        ids: NDArray[np.bytes_],
        matrix: NDArray[np.float32],
        columns: Mapping[str, HeldColumn],
    ) -> None:
        """Add rows: ids of shape (n,), unit vectors of shape (n, dimensions), their columns."""
        keys = np.arange(self._rows, self._rows + len(ids), dtype=np.uint64)
        for start in range(0, len(ids), CHUNK):
            self._graph.add(
                keys[start : start + CHUNK], matrix[start : start + CHUNK], threads=1, copy=True
            )
        self._vectors.write(np.ascontiguousarray(matrix, dtype="<f4").tobytes())
        self._ids.append(ids)
        self._columns.append(columns)
        self._checks.append(checksums(matrix))
        self._rows += len(ids)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the rest and make it all durable.

        Args:
            about: What the index is of; `open_index` gives it back.
        """
        _sync(self._vectors)
        self._vectors.close()
        self._graph.save(str(self._folder / "graph.usearch"))
        columns = join(self._columns)
        arrays: dict[str, Any] = {
            "ids": np.concatenate(self._ids),
            "checks": np.concatenate(self._checks),
            **{f"column.{name}": held.values for name, held in columns.items()},
        }
        np.savez(self._folder / "rows.npz", **arrays)
        files = {
            name: {"size": path.stat().st_size, "checksum": _checksum(path)}
            for name in ("graph.usearch", "rows.npz")
            if (path := self._folder / name)
        }
        manifest = {
            "format": FORMAT,
            "dimensions": self._dimensions,
            "labels": {name: held.labels for name, held in columns.items() if held.labels},
            "files": files,
            "about": dict(about),
        }
        body = json.dumps(manifest)
        text = json.dumps({"manifest": body, "checksum": zlib.crc32(body.encode())})
        for name in ("graph.usearch", "rows.npz"):
            with (self._folder / name).open("rb+") as file:
                _sync(file)
        with (self._folder / "manifest.json").open("x") as file:
            file.write(text)
            _sync(file)


def open_index(folder: Path) -> tuple[Segment, dict[str, Any]]:
    """Return the segment in a folder and what it is about.

    Raises:
        DamagedIndexError: A file is missing, cut short, altered, or of another format.
    """
    with _damage_noticed(folder):
        outer = json.loads((folder / "manifest.json").read_text())
        body = outer["manifest"]
        if zlib.crc32(body.encode()) != outer["checksum"]:
            raise DamagedIndexError(str(folder))
        manifest = json.loads(body)
        if manifest["format"] != FORMAT:
            raise DamagedIndexError(str(folder))
        for name, expected in manifest["files"].items():
            path = folder / name
            if (path.stat().st_size, _checksum(path)) != (expected["size"], expected["checksum"]):
                raise DamagedIndexError(str(path))
        with np.load(folder / "rows.npz") as rows:
            ids, checks = rows["ids"], rows["checks"]
            columns = {
                name: HeldColumn(rows[key], tuple(manifest["labels"].get(name, ())))
                for key in rows.files
                if (name := key.removeprefix("column.")) != key
            }
        vectors = MappedVectors(folder / "vectors.f32", manifest["dimensions"], checks)
        graph = UsearchGraph(folder / "graph.usearch")
        if len(graph) != len(ids):
            raise DamagedIndexError(str(folder))
        return Segment(ids, vectors, columns, graph), manifest["about"]


@contextlib.contextmanager
def _damage_noticed(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError) as error:
        # What the readers of these files raise for one that is missing, cut short or garbled.
        raise DamagedIndexError(str(folder)) from error


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
