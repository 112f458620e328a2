"""The precision of a GPU's products of float32."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class _Open:
    """The blocks of :func:`tf32_products` that are open, in all threads."""

    n: int = 0
    # the setting before the first of them was opened
    before: object = None


_open = _Open()
_lock = threading.Lock()


@contextmanager
def tf32_products(are_allowed):
    """Let a GPU round the factors of products of float32 to TF32 in a block, if that is asked for.

    The setting is that of the whole process: it lasts until the last of several blocks ends. Where
    it is not asked for, it is neither read nor written: torch refuses to tell it by its older name
    once it was set by its newer one.

    Parameters
    ----------
    are_allowed : bool
    """
    if not are_allowed:
        yield
        return
    settings = torch.backends.cuda.matmul
    # torch 2.9 has a newer setting
    is_new = hasattr(settings, "fp32_precision")
    name, value = ("fp32_precision", "tf32") if is_new else ("allow_tf32", True)
    with _lock:
        if _open.n == 0:
            _open.before = getattr(settings, name)
            setattr(settings, name, value)
        _open.n += 1
    try:
        yield
    finally:
        with _lock:
            _open.n -= 1
            if _open.n == 0:
                setattr(settings, name, _open.before)
