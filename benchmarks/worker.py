"""A process that holds one system and does what it is told through a pipe."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.systems import Documents, System, systems

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray


class Failed(Exception):  # noqa: N818 - said of a system, not of this program
    """A system could not do what it was asked."""


def resident() -> tuple[int, int]:
    """Return the bytes of this process in memory: all, and those not of a mapped file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    pages = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB$", status, re.MULTILINE))
    return int(pages["VmRSS"]) * 1024, int(pages["RssAnon"]) * 1024


class Served:
    """What a worker does; each method is one message."""

    system: System

    def __init__(self, name: str, folder: Path, dimensions: int) -> None:
        self._name, self._folder, self._dimensions = name, folder, dimensions
        self._start = resident()

    def _make(self) -> System:
        self.system = systems()[self._name](self._folder, self._dimensions)
        return self.system

    def build(self, data: Path, query: NDArray[np.float32]) -> float:
        """Return the seconds from the first document to the first answer."""
        shutil.rmtree(self._folder, ignore_errors=True)
        documents = Documents(np.load(data / "vectors.npy"), np.load(data / "usage.npy"))
        started = time.perf_counter()
        self._make().build(documents)
        self.system.search(query, None)
        taken = time.perf_counter() - started
        self.system.close()
        return taken

    def first(self, query: NDArray[np.float32]) -> tuple[float, float]:
        """Return the milliseconds from import to the first answer, and those of the first query."""
        started = time.perf_counter()
        self._make().open()
        opened = time.perf_counter()
        self.system.search(query, None)
        ended = time.perf_counter()
        return (ended - started) * 1000, (ended - opened) * 1000

    def ask(
        self, queries: NDArray[np.float32], below: int | None
    ) -> tuple[list[float], list[list[int]]]:
        return self.system.ask(queries, below)

    def grown(self) -> tuple[int, int]:
        """Return the bytes in memory beyond those before the library was imported."""
        every, anonymous = resident()
        return every - self._start[0], anonymous - self._start[1]

    def close(self) -> None:
        self.system.close()


def _serve(pipe: Connection, name: str, folder: Path, dimensions: int) -> None:
    served = Served(name, folder, dimensions)
    while (message := pipe.recv()) is not None:
        method, arguments = message
        try:
            pipe.send((getattr(served, method)(*arguments), None))
        except Exception as exc:  # noqa: BLE001 - whatever it is goes into the report
            traceback.print_exc()
            pipe.send((None, f"{type(exc).__name__}: {exc}"))


class Worker:
    """One system in a fresh process."""

    def __init__(self, name: str, folder: Path, dimensions: int) -> None:
        # Spawned, not forked: nothing of another system is in it.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, folder, dimensions), daemon=True
        )
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Have a method of `Served` run; raises `Failed` with what went wrong."""
        try:
            self._pipe.send((method, arguments))
            result, error = self._pipe.recv()
        except (EOFError, OSError) as exc:
            raise Failed(f"its process ended in {method}") from exc
        if error is not None:
            raise Failed(error)
        return result

    def stop(self) -> None:
        if self._process.is_alive():
            self._pipe.send(None)
            self._process.join(10)
            self._process.kill()
