"""Progress for people who wait."""

import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from rich.status import Status

PATIENCE = 1.0
"""Seconds before anything is shown: what takes no longer needs no word."""


class Progress:
    """Says on a terminal what is done, once it takes longer than PATIENCE; elsewhere nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._step = ""
        self._status: Status | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True

    def __enter__(self) -> "Progress":
        if self._stream.isatty():
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._status is not None:
                self._status.stop()

    def step(self, what: str) -> None:
        """Take note of what is done next."""
        with self._lock:
            self._step = what
            if self._status is not None:
                self._status.update(f"{what} ...")

    def _show(self) -> None:
        from rich.console import Console
        from rich.status import Status

        with self._lock:
            self._status = Status(f"{self._step} ...", console=Console(file=self._stream))
            self._status.start()


class Bars:
    """Shows on a terminal how much of each collection is done; elsewhere nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: RichProgress | None = None
        self._of: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, collection: str, done: int, total: int) -> None:
        """Show how many records of a collection are done."""
        if self._bars is None:
            return
        if collection not in self._of:
            self._of[collection] = self._bars.add_task(collection.replace("_", " "))
        self._bars.update(self._of[collection], completed=done, total=total)
