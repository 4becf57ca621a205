"""Saved jobs as files: one JSON object in each, which ends with a checksum over all that comes before.

A file is written beside the one that it replaces, and takes its name only when it is complete and on the disk: whoever
reads finds the old job or the new one, whatever happens meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from ..errors import LoadError
from .shapes import Shapes

FORMAT = 1
_CHECKSUM = b',"checksum":'
StrPath = str | os.PathLike[str]


def sealed(document: bytes) -> bytes:
    """Return a document, a JSON object, as the content of a file."""
    body = document[:-1]
    return b"%s%s%d}\n" % (body, _CHECKSUM, crc32(body))


def from_bytes(content: bytes, name: str) -> dict[str, Any]:
    """Return the document in a file's content; ``name`` is what the file is called in errors."""
    try:
        document = orjson.loads(content)
    except ValueError as error:
        raise LoadError(f"{name} is no saved job: it is no JSON, or it is truncated or damaged: {error}") from error
    check_format(document, name)
    body, mark, checksum = content.rpartition(_CHECKSUM)
    if not mark or checksum.strip() != b"%d}" % crc32(body):
        raise LoadError(f"{name} was altered or damaged after it was saved: its checksum does not fit its content")
    return document  # type: ignore[no-any-return]


def check_format(document: Any, name: str) -> None:
    """Raise LoadError unless a document is a saved job in a format that can be read."""
    if type(document) is not dict or "format" not in document or "record" not in document:
        raise LoadError(f"{name} is no saved job: it lacks 'format' and 'record'")
    number = Shapes(name).take(document, "format", int)
    if number != FORMAT:
        newer = f"a newer version of routilux ({document.get('routilux')})" if number > FORMAT else "nobody"
        raise LoadError(f"{name} has format {number}, written by {newer}; this version reads format {FORMAT}")


def read(path: StrPath) -> dict[str, Any]:
    """Return the document in a file. Raises LoadError when it is no saved job; OSError when it cannot be read."""
    return from_bytes(Path(path).read_bytes(), f"file {os.fspath(path)!r}")


def write(path: StrPath, content: bytes) -> None:
    """Put content into a file, atomically; a link is followed, and a file that was there gives its permissions.

    Raises OSError when that is not possible; what was there before is untouched then.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        mode = None
    new = target.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "there is no such folder", str(target.parent)) from error
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if mode is not None:
            os.chmod(new, mode)
        os.replace(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Have the file's new name on the disk, too, where a folder can be synchronized."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
