"""A disk that loses its power: what is on it, of the calls that a process has made.

The calls come from ``power_recorder.c``. The model is the weakest that SQLite is built for
(sqlite.org/atomiccommit.html, section 9) and that any file system keeps which has a journal:

- The content of a file is on the disk when `fsync` of that file has returned. Of what was written
  or cut off since, anything may be there: each sector of each write by itself, in any combination.
  A file that has grown may have zeros where its content did not arrive.
- A sector is written whole or not at all, and its neighbours stay as they were (SQLite's "powersafe
  overwrite").
- A name (made, renamed, removed) is on the disk when `fsync` of its folder has returned. Of what
  happened to names since, a beginning may be there, in the order of the calls: a journal keeps it.
  That a file's `fsync` brings its name to the disk too, as on ext4, is not relied on.
- What is mapped into memory is lost. SQLite maps its shared memory (``-shm``) alone, which is made
  anew from the write-ahead log.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

HEADER: Final = struct.Struct("=c3xIIIQq")

SHARED_MEMORY: Final = "-shm"


class Call(NamedTuple):
    """A call that changed something.

    Attributes:
        what: ``c`` file made, ``m`` folder made, ``w`` written, ``t`` cut off or made longer, ``s``
            file synced, ``S`` folder synced, ``u`` removed, ``r`` renamed.
        file: The inode, where a file is meant by it.
        place: Where it was written, or the new length.
        first: The path, or what was written.
        second: The new path.
    """

    what: str
    file: int
    place: int
    first: bytes
    second: bytes

    @property
    def path(self) -> PurePosixPath:
        """The path that is made, removed, renamed or synced."""
        return PurePosixPath(self.first.decode())

    @property
    def name(self) -> PurePosixPath:
        """The path of which the folder has to be synced."""
        return PurePosixPath((self.second or self.first).decode())


def read_calls(log: Path) -> Iterator[Call]:
    """Yield the calls in their order."""
    content = log.read_bytes()
    place = 0
    while place < len(content):
        what, first, second, _, file, where = HEADER.unpack_from(content, place)
        place += HEADER.size
        middle, end = place + first, place + first + second
        yield Call(what.decode(), file, where, content[place:middle], content[middle:end])
        place = end


@dataclass
class File:
    """A file: what of it is on the disk, and the writes that may be."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def sync(self) -> None:
        for call in self.pending:
            if call.what == "w":
                _write(self.synced, call.place, call.first)
            else:
                _resize(self.synced, call.place)
        self.pending.clear()

    def after(self, sector: int | None, chance: random.Random) -> bytes:
        """Return what is there after the cut.

        Args:
            sector: Bytes that arrive together, of half of what is not synced; None where nothing
                of that arrives.
            chance: Says which ones.
        """
        if sector is None or not self.pending:
            return bytes(self.synced)
        content = bytearray(self.synced)
        size = len(content)
        for call in self.pending:
            if call.what == "w":
                size = max(size, call.place + len(call.first))
                for start, end in _sectors(call, sector):
                    if chance.random() < 0.5:
                        _write(content, start, call.first[start - call.place : end - call.place])
            else:
                size = call.place
                if chance.random() < 0.5:
                    _resize(content, call.place)
        if size > len(content) and chance.random() < 0.5:
            _resize(content, size)
        return bytes(content)


Names = dict[PurePosixPath, File | None]
"""What each name leads to: a file, or None for a folder."""


class Disk:
    """What the calls so far have left."""

    def __init__(self, root: Path) -> None:
        """Begin with an empty folder, which is on the disk.

        Args:
            root: The folder, of which `cut` takes possession.
        """
        self._root = PurePosixPath(root)
        self._files: dict[int, File] = {}
        self._synced: Names = {}
        self._pending: list[Call] = []
        self._made: dict[int, File] = {}

    def take(self, call: Call) -> None:
        """Make one more call."""
        match call.what:
            case "c":
                # The number of an inode that is gone comes again.
                self._files[call.file] = File()
                self._made[id(call)] = self._files[call.file]
                self._pending.append(call)
            case "m" | "u" | "r":
                self._pending.append(call)
            case "w" | "t":
                self._files[call.file].pending.append(call)
            case "s":
                self._files[call.file].sync()
            case "S":
                self._sync_folder(call.path)

    def _sync_folder(self, folder: PurePosixPath) -> None:
        later: list[Call] = []
        for call in self._pending:
            if call.name.parent != folder:
                later.append(call)
                continue
            if call.what == "r":
                # What was made under a name that is not on the disk is there under its new one.
                for earlier in [earlier for earlier in later if earlier.name == call.path]:
                    self._name(self._synced, earlier)
                    later.remove(earlier)
            self._name(self._synced, call)
        self._pending = later

    def _name(self, names: Names, call: Call) -> None:
        match call.what:
            case "c":
                names[call.path] = self._made[id(call)]
            case "m":
                names[call.path] = None
            case "u":
                names.pop(call.path, None)
            case "r" if call.path in names:
                new = call.name
                for path in [path for path in names if path.is_relative_to(call.path)]:
                    names[new / path.relative_to(call.path)] = names.pop(path)

    @property
    def pending_names(self) -> int:
        """How many changes of names may be lost."""
        return len(self._pending)

    def cut(self, *, names: int, sector: int | None, chance: random.Random) -> None:
        """Put into the folder what is there when the power comes back.

        It must be the same folder, as SQLite's journals name each other by absolute paths.

        Args:
            names: How many changes of names arrive of those that are not synced.
            sector: See `File.after`.
            chance: Says what arrives.
        """
        shutil.rmtree(self._root)
        Path(self._root).mkdir()
        there = dict(self._synced)
        for call in self._pending[:names]:
            self._name(there, call)
        for path in sorted(there):
            # What is in a folder whose own name is lost is lost.
            if any(
                parent not in there
                for parent in path.parents
                if parent != self._root and parent.is_relative_to(self._root)
            ):
                continue
            place, file = Path(path), there[path]
            if file is None:
                place.mkdir(mode=0o700)
            elif not path.name.endswith(SHARED_MEMORY):
                place.write_bytes(file.after(sector, chance))
                place.chmod(0o600)

    def undisturbed(self) -> dict[str, bytes]:
        """Return all files as they are while the power is on."""
        names = dict(self._synced)
        for call in self._pending:
            self._name(names, call)
        found = {}
        for path, file in names.items():
            if file is not None and not path.name.endswith(SHARED_MEMORY):
                whole = File(bytearray(file.synced), list(file.pending))
                whole.sync()
                found[str(path.relative_to(self._root))] = bytes(whole.synced)
        return found


def _sectors(call: Call, size: int) -> Iterator[tuple[int, int]]:
    """Yield where the sectors of a write begin and end."""
    start, end = call.place, call.place + len(call.first)
    while start < end:
        next_one = min(end, (start // size + 1) * size)
        yield start, next_one
        start = next_one


def _write(content: bytearray, place: int, data: bytes) -> None:
    if place > len(content):
        _resize(content, place)
    content[place : place + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))
