"""The precision of a GPU's products of float32."""

from contextlib import contextmanager

import torch


@contextmanager
def tf32_products(are_allowed):
    """Let a GPU round the factors of products of float32 to TF32 in a block, if that is asked for.

    The setting is that of the whole process. Where it is not asked for, it is neither read nor
    written: torch refuses to tell it by its older name once it was set by its newer one.

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
    before = getattr(settings, name)
    setattr(settings, name, value)
    try:
        yield
    finally:
        setattr(settings, name, before)
