"""The options by which users ask for a cache."""

import os
from numbers import Real

from sktune.engine.store.folder import FolderStore

# Of `cache_limit`.
_MB = 2**20


def open_cache(cache, cache_limit=1024, checkpoint_interval=60.0):
    """Return the store of a cache; None if there is none.

    Parameters
    ----------
    cache : str, path or None
        A folder.
    cache_limit : float or None, default=1024
        The MB (of 2**20 bytes) that it may take; the oldest files are removed first. None is no
        limit.
    checkpoint_interval : float, default=60.0
        After so many seconds trainings in progress are kept, too.

    Raises
    ------
    ValueError
        If one of them is of another type or out of its range, or `cache` is a file.
    """
    check_cache(cache, cache_limit, checkpoint_interval)
    if cache is None:
        return None
    max_bytes = None if cache_limit is None else cache_limit * _MB
    return FolderStore(os.fspath(cache), max_bytes, checkpoint_interval)


def check_cache(cache, cache_limit, checkpoint_interval):
    """Raise a ValueError unless the options of a cache are of use."""
    if cache is not None and (not isinstance(cache, str | os.PathLike) or not os.fspath(cache)):
        raise ValueError(f"cache must be the path of a folder or None, got cache={cache!r}")
    if cache_limit is not None and not _is_positive(cache_limit):
        raise ValueError(
            f"cache_limit must be a number of MB above 0 or None, got cache_limit={cache_limit!r}"
        )
    if not _is_positive(checkpoint_interval):
        raise ValueError(
            "checkpoint_interval must be a number of seconds above 0, "
            f"got checkpoint_interval={checkpoint_interval!r}"
        )


def _is_positive(value):
    return isinstance(value, Real) and not isinstance(value, bool) and value > 0
