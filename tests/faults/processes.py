"""Processes of their own, which run a function of `tests.faults.workers` and talk in lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import paracle_meta

if TYPE_CHECKING:
    from types import TracebackType

# The package that this process tests is the one that the others run, wherever it was found.
_PATHS: Final = [str(Path(paracle_meta.__file__).parents[1]), str(Path(__file__).parents[2])]
END_SECONDS: Final = 60
"""Longest wait for the end of a process that was told to end, on a machine that is very busy."""


def environment() -> dict[str, str]:
    """Return the environment in which a process finds the package and the tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_PATHS)}


class Worker:
    """A process with a function of `workers`, given arguments and then one JSON value a line.

    At the end of the block it is told to end by the end of its input, and must have done so with no
    word on stderr; after an error in the block it is killed.

    Args:
        function: Of `workers`.
        arguments: What it takes, as JSON.
        warnings: Whether a warning is an error there as it is here; otherwise Python's own filters
            hold, by which nobody is told of a connection that was not closed.
        module: Another module than `workers` that has the function.
    """

    def __init__(
        self, function: str, *arguments: Any, warnings: bool = True, module: str = "workers"
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(["-W", "error"] if warnings else []),
                *("-m", f"tests.faults.{module}", function),
                *map(json.dumps, arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
        )

    def send(self, value: Any = None) -> None:
        """Send a value; None where only the moment matters."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """Wait for a value."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(END_SECONDS)
            raise EOFError(f"The worker ended with {self.process.returncode}.\n{self.errors}")
        return json.loads(line)

    def ask(self, value: Any = None) -> Any:
        """Send a value and wait for the answer."""
        self.send(value)
        return self.receive()

    @property
    def errors(self) -> str:
        """What the process has written to stderr."""
        self._errors.seek(0)
        return self._errors.read()

    def finish(self) -> str:
        """Tell the process to end and return what it had not yet said; it must end well."""
        rest, _ = self.process.communicate(timeout=END_SECONDS)
        assert (self.process.returncode, self.errors) == (0, "")
        return rest

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.process.returncode is None:
                self.finish()
        finally:
            self.process.kill()
            self.process.communicate()
            self._errors.close()
