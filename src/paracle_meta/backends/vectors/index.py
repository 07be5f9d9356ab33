"""A segment with a graph, in files that are written once and then only read.

A folder holds:

``graph.usearch``   an HNSW graph (Malkov and Yashunin, arXiv:1603.09320) over int8 vectors
``i8``      the unit vectors rounded to a byte a number, to find those worth comparing
``f32``     the unit vectors, row by row, for comparing some of them in float32
``rows.bin``        the rows' ids, filterable columns, and a checksum of each row's vector
``manifest.json``   what it is of, with the size and checksum of the other files

The folder is a cache. Whatever is wrong with it is noticed and raised as `DamagedIndexError`, and
the caller goes on without it: the graph and the rows are checked whole when they are opened, and a
vector when it is used, as reading all of them would take longer than the search.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from paracle_meta.backends.vectors.columns import HeldColumn, join
from paracle_meta.backends.vectors.files import (
    ALIGNMENT,
    DamagedIndexError,
    FileRows,
    Watch,
    checksums,
    mapped,
)
from paracle_meta.backends.vectors.rounded import RoundedVectors, rounded
from paracle_meta.backends.vectors.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from mmap import mmap
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

FORMAT: Final = 4
"""Of the files; a cache of another format is made anew."""

FOLDED: Final = 4_096
"""Bytes that are left of a file before CRC-32 goes through them."""

CONNECTIVITY: Final = 32
"""Edges a node. See docs/decisions/0010 for what was measured of these three."""

EXPANSION_ADD: Final = 256
"""Candidates kept while a vector is added."""

EXPANSION_SEARCH: Final = 192
"""Candidates kept while searching: vectors of real texts need more of them than made ones."""

WORTH_ROUNDING: Final = 20
"""Rows for each one that is wanted, from which it is worth looking at rounded ones first."""

ROUNDED_COST: Final = 0.5
"""What comparing a rounded number, far from the last one, costs beside a whole one in the cache."""

CORES: Final = os.cpu_count() or 1
"""As many threads as a graph has places for."""

CHUNK: Final = 256
"""Vectors added at once: some tens of milliseconds, after which others get their turn."""


class UsearchGraph:
    """A graph in a file that is mapped into memory."""

    def __init__(self, path: Path, mapped: mmap) -> None:
        self._watch = Watch(path)
        graph = _load_usearch().Index.restore(
            memoryview(mapped), view=True, expansion_search=EXPANSION_SEARCH
        )
        if graph is None:
            raise ValueError("no graph")
        self._graph = graph
        # What the graph looks at must not go before it does.
        self._mapped = mapped

    def __len__(self) -> int:
        return len(self._graph)

    def effort(self, count: int) -> int:
        """See `segment.Graph`."""
        return max(count, EXPANSION_SEARCH)

    def near(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """See `segment.Graph`."""
        self._check()
        found: NDArray[np.int64] = self._graph.search(query, count, threads=1).keys.astype(np.int64)
        return found

    def near_each(self, queries: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
        """See `segment.Graph`."""
        self._check()
        found: Any = self._graph.search(queries, count, threads=min(len(queries), CORES))
        return [found[n].keys.astype(np.int64) for n in range(len(queries))]

    def _check(self) -> None:
        if self._watch.changed():
            raise DamagedIndexError(str(self._watch.path))


class MappedVectors:
    """Vectors in a file, and the same rounded in another, which is looked at first."""

    def __init__(self, rows: FileRows, rounded: RoundedVectors) -> None:
        self._rows = rows
        self._rounded = rounded

    def __len__(self) -> int:
        return len(self._rows.matrix)

    @property
    def dimensions(self) -> int:
        """See `segment.Vectors`."""
        return int(self._rows.matrix.shape[1])

    @property
    def row_cost(self) -> float:
        """See `segment.Vectors`."""
        return self.dimensions * ROUNDED_COST

    def promising(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None, count: int
    ) -> NDArray[np.integer[Any]] | None:
        """See `segment.Vectors`."""
        available = len(self) if rows is None else len(rows)
        if available < WORTH_ROUNDING * count:
            return rows
        return self._rounded.best(query, rows, count)

    def products(
        self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.float32]:
        """See `segment.Vectors`."""
        if rows is None:
            rows = np.arange(len(self))
        products = np.empty(len(rows), dtype=np.float32)
        # In pieces that stay in the processor's cache between the check and the product.
        for start in range(0, len(rows), CHUNK):
            matrix = self._rows.read(rows[start : start + CHUNK])
            np.vecdot(matrix, query, out=products[start : start + CHUNK])
        return products

    def matrix(self) -> NDArray[np.float32]:
        """See `segment.Vectors`."""
        return self._rows.matrix

    def check(self) -> None:
        """Read all of both files.

        Raises:
            DamagedIndexError: A row is not what was written.
        """
        for start in range(0, len(self), CHUNK):
            self._rows.read(slice(start, start + CHUNK))
        self._rounded.check()


class IndexWriter:
    """Writes an index, row by row in bytewise order of the ids."""

    def __init__(self, folder: Path, dimensions: int, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._graph = _load_usearch().Index(
            ndim=dimensions,
            metric="ip",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
        )
        self._dimensions = dimensions
        folder.mkdir(mode=0o700, parents=True)
        self._vectors = (folder / "vectors.f32").open("xb")
        self._rounded = (folder / "vectors.i8").open("xb")
        self._ids: list[NDArray[np.bytes_]] = []
        self._columns: list[Mapping[str, HeldColumn]] = []
        self._rows_about: list[Mapping[str, NDArray[Any]]] = []
        self._rows = 0

    def abandon(self) -> None:
        """Remove what was written."""
        for vectors in (self._vectors, self._rounded):
            # It tries once more to write what it could not.
            with contextlib.suppress(OSError):
                vectors.close()
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
                keys[start : start + CHUNK],
                matrix[start : start + CHUNK],
                threads=self._threads,
                copy=True,
            )
        bytes_, scales = rounded(matrix)
        self._vectors.write(np.ascontiguousarray(matrix, dtype="<f4").tobytes())
        self._rounded.write(bytes_.tobytes())
        self._ids.append(ids)
        self._columns.append(columns)
        self._rows_about.append(
            {
                "checks": checksums(matrix),
                "rounded_checks": checksums(bytes_),
                "rounded_scales": scales,
            }
        )
        self._rows += len(ids)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the rest and make it all durable.

        Args:
            about: What the index is of; `open_index` gives it back.
        """
        for vectors in (self._vectors, self._rounded):
            _sync(vectors)
            vectors.close()
        try:
            self._graph.save(str(self._folder / "graph.usearch"))
        except RuntimeError as error:
            # All that usearch says of a disk, which is most often full.
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
        columns = join(self._columns)
        arrays: dict[str, NDArray[Any]] = {
            "ids": np.concatenate(self._ids),
            **{
                name: np.concatenate([about[name] for about in self._rows_about])
                for name in self._rows_about[0]
            },
            **{f"column.{name}": held.values for name, held in columns.items()},
        }
        layout = _write_arrays(self._folder / "rows.bin", arrays)
        files = {}
        for name in ("graph.usearch", "rows.bin"):
            with contextlib.closing(mapped(self._folder / name)) as content:
                files[name] = _fingerprint(content)
        manifest = {
            "format": FORMAT,
            "dimensions": self._dimensions,
            "labels": {name: held.labels for name, held in columns.items() if held.labels},
            "files": files,
            "arrays": layout,
            "about": dict(about),
        }
        body = json.dumps(manifest)
        text = json.dumps({"manifest": body, "checksum": zlib.crc32(body.encode())})
        for name in files:
            with (self._folder / name).open("rb+") as file:
                _sync(file)
        with (self._folder / "manifest.json").open("x") as file:
            file.write(text)
            _sync(file)
        for path in self._folder.iterdir():
            path.chmod(0o600)  # Whatever the umask made of them.


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
        graph_file = folder / "graph.usearch"
        graph_bytes = mapped(graph_file)
        rows = (folder / "rows.bin").read_bytes()
        for name, content in (("graph.usearch", graph_bytes), ("rows.bin", rows)):
            if _fingerprint(content) != manifest["files"][name]:
                raise DamagedIndexError(str(folder / name))
        arrays = _read_arrays(rows, manifest["arrays"])
        columns = {
            name: HeldColumn(values, tuple(manifest["labels"].get(name, ())))
            for key, values in arrays.items()
            if (name := key.removeprefix("column.")) != key
        }
        ids = arrays["ids"]
        dimensions = manifest["dimensions"]
        vectors = MappedVectors(
            FileRows(folder / "vectors.f32", np.dtype("<f4"), dimensions, arrays["checks"]),
            RoundedVectors(
                folder / "vectors.i8",
                dimensions,
                arrays["rounded_scales"],
                arrays["rounded_checks"],
            ),
        )
        graph = UsearchGraph(graph_file, graph_bytes)
        if len(graph) != len(ids):
            raise DamagedIndexError(str(folder))
        return Segment(ids, vectors, columns, graph), manifest["about"]


def check_index(folder: Path) -> dict[str, Any]:
    """Read all of an index, also what a search reads when it needs it, and return what it is about.

    Raises:
        DamagedIndexError: See `open_index`.
    """
    segment, about = open_index(folder)
    if isinstance(segment.vectors, MappedVectors):
        segment.vectors.check()
    return about


def _load_usearch() -> ModuleType:
    """Return the module of the graphs.

    Where onnxruntime is installed, for our model MiniLM or for another package, it is loaded
    before: loaded after usearch it ends the process (onnxruntime 1.32.0, usearch 2.26.6).
    """
    if find_spec("onnxruntime"):
        import_module("onnxruntime")
    return import_module("usearch.index")


@contextlib.contextmanager
def _damage_noticed(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError) as error:
        # What the readers of these files raise for one that is missing, cut short or garbled.
        raise DamagedIndexError(str(folder)) from error


def _fingerprint(content: mmap | bytes) -> dict[str, int]:
    """Return the size of a file and a number that changes with any of its bits.

    Each page-sized block is added to the others without carry, at the speed of memory, and only the
    sum is given to CRC-32, which reads a tenth as fast: opening an index would mostly be that.
    """
    whole = len(content) // FOLDED * FOLDED
    blocks = np.frombuffer(content, dtype="<u8", count=whole // 8).reshape(-1, FOLDED // 8)
    folded = np.bitwise_xor.reduce(blocks, axis=0)
    return {"size": len(content), "checksum": zlib.crc32(content[whole:], zlib.crc32(folded))}


Layout = dict[str, tuple[str, int, int]]
"""The type, the place and the length of each array in a file."""


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Layout:
    """Write one-dimensional arrays one after the other."""
    layout: Layout = {}
    with path.open("xb") as file:
        for name, array in arrays.items():
            file.write(bytes(-file.tell() % ALIGNMENT))
            layout[name] = (array.dtype.str, file.tell(), len(array))
            file.write(array.tobytes())
    return layout


def _read_arrays(content: bytes, layout: Layout) -> dict[str, NDArray[Any]]:
    return {
        name: np.frombuffer(content, dtype=kind, count=length, offset=place)
        for name, (kind, place, length) in layout.items()
    }


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
