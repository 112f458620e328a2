"""How much work modules are, and the threads that it takes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import nn

from sktune.modules.work import few_threads, needs_one_thread
from sktune.runtime.threads import limited_threads


def test_little_work_takes_one_thread_and_leaves_the_setting_as_it_was():
    module = torch.nn.Linear(10, 10)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with few_threads(module, n_rows=64):
            assert torch.get_num_threads() == 1
        with few_threads(module, n_rows=10**6):
            assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="inside"), few_threads(module, n_rows=64):
            raise ValueError("inside")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("module", "row_shape", "most_rows"),
    [
        (nn.Linear(1023, 1024), (1023,), 8),
        # 1,024 numbers, at each place of a quarter of the image
        (nn.Conv2d(1, 64, (5, 3)), (1, 32, 32), 32),
        (nn.Conv2d(1, 64, (5, 3)), (1024,), 32),
        (nn.Conv1d(1, 64, 15), (1, 1024), 32),
        (nn.ConvTranspose2d(64, 16, 1, bias=False), (64, 32, 32), 32),
        (nn.Sequential(nn.Conv2d(1, 64, (5, 3)), nn.Linear(1023, 1024)), (1, 2, 2), 8),
        # 943 and 1,024 numbers, at each step
        (nn.RNN(16, 23), (256, 16), 35),
        (nn.MultiheadAttention(16, 1, bias=False), (256, 16), 32),
        (nn.MultiheadAttention(16, 1, bias=False), (256,), 32),
        (nn.MultiheadAttention(16, 1, bias=False), (), 8192),
        (nn.LazyConv2d(4, 3), (1, 32, 32), 10**9),
    ],
)
def test_as_much_work_as_several_threads_share(module, row_shape, most_rows):
    assert needs_one_thread(module, most_rows - 1, row_shape)
    is_lazy = isinstance(module, nn.LazyConv2d)
    assert needs_one_thread(module, most_rows, row_shape) == is_lazy


def test_little_work_in_several_threads_leaves_new_threads_the_setting_as_it_was():
    module = torch.nn.Linear(10, 10)
    before = torch.get_num_threads()
    inside = Event()
    outside = Event()

    def work_while_another_does():
        with few_threads(module, n_rows=64):
            inside.set()
            outside.wait(10)

    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(work_while_another_does)
            inside.wait(10)
            second = pool.submit(work_while_another_does)
            outside.set()
            first.result()
            second.result()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
        with limited_threads(2), few_threads(module, n_rows=64):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with limited_threads(2):
            with few_threads(module, n_rows=64):
                pass
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
