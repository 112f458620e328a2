"""The precision of a GPU's products is changed only where that is asked for."""

from contextlib import suppress

import torch

from sktune.runtime.gpu.precision import tf32_products

MATMUL = torch.backends.cuda.matmul
NAME = "fp32_precision" if hasattr(MATMUL, "fp32_precision") else "allow_tf32"


def test_tf32_ends_with_its_block():
    before = getattr(MATMUL, NAME)
    found = []
    with suppress(MemoryError), tf32_products(True):
        found.append(getattr(MATMUL, NAME))
        raise MemoryError

    assert found[0] in ("tf32", True)
    assert getattr(MATMUL, NAME) == before


def test_nothing_is_read_or_written_where_it_is_not_asked_for(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("the precision was set by a mix of old and new names")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", refuse)
    before = getattr(MATMUL, NAME)
    with tf32_products(False):
        assert getattr(MATMUL, NAME) == before


def test_the_last_of_several_blocks_restores_the_setting():
    before = getattr(MATMUL, NAME)
    one, other = tf32_products(True), tf32_products(True)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    found = getattr(MATMUL, NAME)
    other.__exit__(None, None, None)

    assert found in ("tf32", True)
    assert getattr(MATMUL, NAME) == before
