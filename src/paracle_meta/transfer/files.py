"""Files, folders and streams: what an export is written to and an import is read from."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from paracle_meta.backends.folders import sync
from paracle_meta.exceptions import TransferError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GZIP: Final = b"\x1f\x8b"
"""The first bytes of every gzip file (RFC 1952)."""

GZIP_FORMAT: Final = 31
"""What zlib calls it: 15 for the usual window, and 16 more."""

GZIP_SUFFIX: Final = ".gz"

GZIP_LEVEL: Final = 6
"""What `gzip` takes: a third of the time of Python's default of 9, for a hundredth of the size."""

READ_AT_ONCE: Final = 1 << 18
"""Bytes asked of a file at once: more is not faster."""

OWNER_ONLY: Final = 0o700
"""A folder with prompts in it is nobody else's business; `tempfile` treats files the same way."""


@contextlib.contextmanager
def saying(name: str, what: str) -> Iterator[None]:
    """Turn what the system says about a file into an error of ours.

    A reader of the output that went away is no failure of ours, so that error goes on as it is.

    Raises:
        TransferError: The file cannot be read or written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise TransferError(f"{name} cannot be {what}: {exc.strerror or exc}.") from exc


def is_folder(path: str | Path) -> bool:
    """Whether a path means a folder: there is one, or it ends like one."""
    return str(path).endswith(("/", os.sep)) or Path(path).is_dir()


def is_device(path: str | Path) -> bool:
    """Whether a path means a pipe, a terminal or the like, which is written to as it is."""
    return Path(path).exists() and not is_folder(path) and not Path(path).is_file()


class Output:
    """What an export writes to, under the name that messages call it by."""

    def __init__(self, name: str, file: IO[bytes], *, packed: bool = False) -> None:
        """Write nothing yet.

        Args:
            name: What messages call it.
            file: Where to write.
            packed: Whether to compress. There is no name and no time in it, so that the same
                records are the same bytes.
        """
        self._name = name
        self._file = file
        self._packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_FORMAT) if packed else None

    def write(self, text: str) -> None:
        """Write text."""
        data = text.encode()
        if self._packer is not None:
            data = self._packer.compress(data)
        with saying(self._name, "written"):
            self._file.write(data)

    def finish(self) -> None:
        """Write what is still in memory."""
        with saying(self._name, "written"):
            if self._packer is not None:
                self._file.write(self._packer.flush())
            self._file.flush()


@contextlib.contextmanager
def outputs(target: IO[bytes] | Path | str, kinds: Sequence[str]) -> Iterator[Mapping[str, Output]]:
    """Give, for each kind, what it is written to: one file or stream for all, or one each.

    A file has its name only when the block has ended, and whole; where the block raises, what had
    the name before is still there.

    Args:
        target: A stream, the name of a file, compressed where that ends with ``.gz``, or a folder.
        kinds: For a folder, a file ``<kind>.jsonl`` is made for each.
    """
    if not isinstance(target, str | Path):
        output = Output("The output", target)
        yield dict.fromkeys(kinds, output)
        output.finish()
        return
    with contextlib.ExitStack() as stack:
        if not is_folder(target):
            yield dict.fromkeys(kinds, stack.enter_context(_whole(Path(target))))
            return
        folder = Path(target)
        with saying(str(folder), "made"):
            folder.mkdir(OWNER_ONLY, parents=True, exist_ok=True)
        yield {kind: stack.enter_context(_whole(folder / f"{kind}.jsonl")) for kind in kinds}


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Output]:
    name = str(path)
    if is_device(path):
        with saying(name, "written"):
            device = path.open("wb")
        with _closing(name, device):
            output = Output(name, device, packed=path.suffix == GZIP_SUFFIX)
            yield output
            output.finish()
        return
    with saying(name, "written"):
        # Where a link leads, so that the link stays one.
        target = path.resolve()
        descriptor, temporary = tempfile.mkstemp(".part", ".paracle-", target.parent)
    try:
        with _closing(name, open(descriptor, "wb")) as file:  # noqa: PTH123 - it is open
            output = Output(name, file, packed=path.suffix == GZIP_SUFFIX)
            yield output
            output.finish()
            with saying(name, "written"):
                # A crash after the renaming must not leave an empty file under the name.
                os.fsync(file.fileno())
        with saying(name, "written"):
            Path(temporary).replace(target)
            sync(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


@contextlib.contextmanager
def _closing(name: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        yield file
    finally:
        # It tries once more to write what it could not.
        with saying(name, "written"):
            file.close()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that cannot be read.

    Attributes:
        reason: Why.
    """

    reason: str


class Source:
    """A stream of lines, compressed or not.

    Attributes:
        name: Of the file, where there are several; else empty.
        size: Bytes to read in all; 0 where nobody knows.
    """

    def __init__(self, stream: IO[bytes], name: str = "", size: int = 0) -> None:
        self.name = name
        self.size = size
        self._raw = _Counted(stream)

    @property
    def read(self) -> int:
        """How many bytes have been read so far."""
        return self._raw.read_so_far

    def lines(self, longest: int) -> Iterator[tuple[int, bytes | Unreadable]]:
        """Yield each line with its number, from 1 on.

        Args:
            longest: Most bytes of a line; of a longer one only the number is known.
        """
        reader: Any = io.BufferedReader(self._raw, READ_AT_ONCE)
        if self._raw.head == GZIP:
            reader = gzip.GzipFile(fileobj=reader)
        number = 1
        while line := self._line(reader, longest):
            if isinstance(line, bytes) and len(line) == longest and not line.endswith(b"\n"):
                yield number, Unreadable(f"it is longer than {longest:,} bytes")
                while isinstance(line, bytes) and line and not line.endswith(b"\n"):
                    line = self._line(reader, longest)
            else:
                yield number, line
                if isinstance(line, Unreadable):
                    return
            number += 1

    def _line(self, reader: Any, longest: int) -> bytes | Unreadable:
        with saying(self.name or "The file", "read"):
            try:
                line: bytes = reader.readline(longest)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                return Unreadable("from here on the compressed file is damaged or cut off")
            return line


class _Counted(io.RawIOBase):
    """Counts the bytes of a stream, of which it has looked at the first."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.head = b""
        while len(self.head) < len(GZIP) and (more := stream.read(len(GZIP) - len(self.head))):
            self.head += more
        self._ahead = self.head
        self.read_so_far = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._ahead or self._stream.read(len(buffer))
        self._ahead = b""
        self.read_so_far += len(data)
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def sources(source: IO[bytes] | Path | str, kinds: Sequence[str]) -> Iterator[list[Source]]:
    """Give what is to be read, in order.

    Args:
        source: A stream, a file, or a folder with files ``<kind>.jsonl`` or ``<kind>.jsonl.gz``.
        kinds: Which of the files in a folder to read.

    Raises:
        TransferError: A file cannot be opened, or a folder holds none of these.
    """
    if not isinstance(source, str | Path):
        yield [Source(source)]
        return
    path = Path(source)
    with contextlib.ExitStack() as stack:
        if not path.is_dir():
            yield [_opened(path, stack)]
            return
        names = [f"{kind}.jsonl{ending}" for kind in kinds for ending in ("", ".gz")]
        found = [name for name in names if (path / name).exists()]
        if not found:
            raise TransferError(f"{path} holds none of the files {', '.join(names[::2])}.")
        yield [_opened(path / name, stack, name) for name in found]


def _opened(path: Path, stack: contextlib.ExitStack, name: str = "") -> Source:
    with saying(str(path), "read"):
        file = stack.enter_context(path.open("rb"))
        return Source(file, name, path.stat().st_size)
