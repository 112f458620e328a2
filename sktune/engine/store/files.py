"""Files that are whole or not there: each bears the digest of its contents as its name."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from uuid import uuid4

SUFFIX = ".safetensors"
# The name of the file that tells a folder from all others.
MARK = ".mark"
# What was not finished is removed once it is this old: nobody writes so long.
_SECONDS_UNTIL_ABANDONED = 3600.0


class DamagedFileError(ValueError):
    """A file does not hold what its name says."""


def write_durably(folder, data):
    """Write bytes into a file of a folder, so that it survives a power cut, or does not appear.

    Parameters
    ----------
    folder : Path
    data : bytes

    Returns
    -------
    name : str
        That of the file.

    Raises
    ------
    OSError
        If the file cannot be written; nothing of it is left then.
    """
    name = hashlib.sha256(data).hexdigest() + SUFFIX
    # threads and processes write to files of their own
    temporary = Path(folder) / f".{name[:16]}-{os.getpid()}-{get_ident()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, Path(folder) / name)
        _sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return name


def _sync_folder(folder):
    """Have the names of a folder written, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_whole(path):
    """Return the bytes of a file.

    Raises
    ------
    DamagedFileError
        If they are not those that were written.
    OSError
        If the file cannot be read.
    """
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != Path(path).name.removesuffix(SUFFIX):
        raise DamagedFileError("its contents do not have the checksum that is its name")
    return data


def list_files(folder):
    """Return the finished files of a folder by name: each its size and when it was written.

    Links, pipes and the like are no files of ours.
    """
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(SUFFIX) or not entry.is_file(follow_symlinks=False):
                continue
            # another process may have removed it
            with suppress(FileNotFoundError):
                status = entry.stat()
                found[entry.name] = (status.st_size, status.st_mtime)
    return found


def read_mark(folder):
    """Return the text that tells a folder from all others; it gets one if it has none."""
    path = Path(folder) / MARK
    if not path.exists():
        temporary = Path(folder) / f".{uuid4().hex}.tmp"
        try:
            temporary.write_text(uuid4().hex)
            # of several processes the first one writes it
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path.read_text()


def remove_abandoned(folder):
    """Remove what processes have left that were killed while they wrote."""
    oldest = time.time() - _SECONDS_UNTIL_ABANDONED
    for path in Path(folder).glob(".*.tmp"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
