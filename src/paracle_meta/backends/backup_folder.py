"""The folder of a backup: its files, and a manifest by which each of them can be checked.

It is made under another name beside and gets its own at the end, so that what has the name is
whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paracle_meta import __version__
from paracle_meta.backends.backups import BackupReport
from paracle_meta.backends.folders import make_folder, sync, written
from paracle_meta.backends.watching import Stopped
from paracle_meta.exceptions import StorageError, TransferError
from paracle_meta.migrations import refuse_newer
from paracle_meta.schema import TABLES

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator, Mapping

FORMAT: Final = 1
"""Of the manifest; a later version of the package that writes another one counts on."""

MANIFEST: Final = "manifest.json"

READ_AT_ONCE: Final = 1 << 20
"""Bytes read at once: more is not faster."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says about itself.

    Attributes:
        backend: The kind of database.
        engine: Its version in words.
        revision: Of the schema.
        created_at: The moment of which it is, in UTC.
        counts: Rows a table.
        details: What else the same kind of database needs to know.
    """

    backend: str
    engine: str
    revision: str
    created_at: datetime
    counts: Mapping[str, int]
    details: Mapping[str, Any]


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Lend an empty folder, which becomes `folder` at the end of the block if it does not raise.

    Only its owner may enter it.

    Raises:
        TransferError: There is something at `folder` that is no empty folder.
        StorageError: It cannot be made.
    """
    folder = folder.absolute()
    _refuse_taken(folder)
    with written(folder):
        make_folder(folder.parent)
        # Made with the rights of the owner alone, whatever the umask.
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        yield partial
        with written(folder):
            sync(partial)
            _refuse_taken(folder)
            if sys.platform == "win32" and folder.exists():
                folder.rmdir()
            partial.rename(folder)
            sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _refuse_taken(folder: Path) -> None:
    with written(folder):
        if (folder.exists() or folder.is_symlink()) and not (
            folder.is_dir() and not any(folder.iterdir())
        ):
            raise TransferError(
                f"{folder} exists already and is not empty, and a backup never replaces anything; "
                "name a folder that does not exist yet."
            )


def seal(
    partial: Path, manifest: Manifest, stop: threading.Event, *, name: Path | None = None
) -> BackupReport:
    """Make sure that the files of a backup are on the disk, and write its manifest beside them.

    Args:
        partial: Where the files are; nothing has them open.
        manifest: What to say about them.
        stop: When it is set, the work ends with `Stopped`.
        name: What the folder will be called; `partial` unless given.
    """
    files: dict[str, dict[str, Any]] = {}
    with written(partial):
        for path in sorted(partial.iterdir()):
            path.chmod(0o600)
            sync(path)
            digest = _copied(path, None, stop)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": digest}
        document = {
            "format": FORMAT,
            "paracle_meta": __version__,
            "backend": manifest.backend,
            "engine": manifest.engine,
            "revision": manifest.revision,
            "created_at": manifest.created_at.isoformat(),
            "rows": dict(manifest.counts),
            "details": dict(manifest.details),
            "files": files,
        }
        path = partial / MANIFEST
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        sync(path)
    return BackupReport(
        folder=name or partial,
        revision=manifest.revision,
        created_at=manifest.created_at,
        counts=manifest.counts,
        size=sum(file["bytes"] for file in files.values()),
    )


def read_manifest(folder: Path, backend: str) -> Manifest:
    """Return what a backup says about itself.

    Raises:
        TransferError: It is no whole backup, or one of another kind of database.
        MigrationError: A newer version of this package made it.
    """
    document = _read(folder)
    try:
        manifest = Manifest(
            backend=str(document["backend"]),
            engine=str(document["engine"]),
            revision=str(document["revision"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            counts={table.name: int(document["rows"][table.name]) for table in TABLES},
            details=dict(document["details"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / MANIFEST) from error
    if manifest.backend != backend:
        raise TransferError(
            f"{folder} is a backup of a {manifest.backend} database and this is a {backend} one; "
            f"restore it with --url to a {manifest.backend} database, then `paracle meta copy` "
            "moves everything."
        )
    refuse_newer([manifest.revision])
    return manifest


def take(
    folder: Path, names: Collection[str], stop: threading.Event, *, into: Path | None = None
) -> None:
    """See that the files of a backup are those that were written, and copy them.

    Args:
        folder: The backup.
        names: Of its files.
        stop: When it is set, the work ends with `Stopped`.
        into: Where to put copies, for their owner only; None for none.

    Raises:
        TransferError: A file is missing or not as it was written.
        StorageError: They cannot be copied.
    """
    files: Any = _read(folder).get("files")
    for name in names:
        try:
            wanted = files[name]["sha256"]
        except (KeyError, TypeError) as error:
            raise _damaged(folder / MANIFEST) from error
        source = folder / name
        if not source.is_file():
            raise TransferError(f"{source} is missing, so this backup is not whole; take another.")
        copy = None if into is None else into / name
        try:
            if copy is not None:
                copy.touch(mode=0o600)
            digest = _copied(source, copy, stop)
        except OSError as error:
            what = "read" if into is None else f"read, or not copied into {into}"
            raise StorageError(
                f"{source} cannot be {what} ({error.strerror or error}); make room, or check the "
                "rights."
            ) from error
        if digest != wanted:
            raise _damaged(source)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TransferError(
            f"{folder} is no backup: it has no {MANIFEST}, which `paracle meta backup` writes last."
        ) from error
    except OSError as error:
        raise TransferError(f"{path} cannot be read ({error.strerror}); check its rights.") from (
            error
        )
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise _damaged(path)
    if document["format"] > FORMAT:
        raise TransferError(
            f"{folder} was made by a newer version of paracle_meta; upgrade the package to "
            "restore it."
        )
    return document


def _damaged(path: Path) -> TransferError:
    return TransferError(f"{path} is damaged: it is not as it was written. Take another backup.")


def _copied(source: Path, copy: Path | None, stop: threading.Event) -> str:
    """Return the SHA-256 of a file, and copy it on the way."""
    digest = hashlib.sha256()
    with contextlib.ExitStack() as open_files:
        reading = open_files.enter_context(source.open("rb"))
        writing = open_files.enter_context(copy.open("wb")) if copy is not None else None
        while data := reading.read(READ_AT_ONCE):
            if stop.is_set():
                raise Stopped
            digest.update(data)
            if writing is not None:
                writing.write(data)
    return digest.hexdigest()
