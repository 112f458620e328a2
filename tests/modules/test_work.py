"""How much work modules are, and the threads that it takes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from sktune import NeuralNetClassifier
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


class Noting(nn.Module):
    """A net on images that notes with how many threads it computes."""

    n_threads = set()

    def __init__(self, n_outputs=3):
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3)
        self.output = nn.Linear(2, n_outputs)

    def forward(self, X):
        self.n_threads.add(torch.get_num_threads())
        return self.output(self.convolution(X).mean((2, 3)))


@pytest.mark.parametrize("is_much", [False, True])
def test_fits_and_predictions_count_the_places_of_images(is_much, monkeypatch):
    X = np.random.default_rng(0).normal(size=(24, 1, 8, 8)).astype(np.float32)
    # 9 numbers of the output, and 20 at each of 16 places
    of_batch = 8 * (9 + 16 * 20)
    monkeypatch.setattr("sktune.engine.compiled.program.enabled", False)
    monkeypatch.setattr("sktune.modules.work._LEAST_TO_DIVIDE", of_batch + (not is_much))
    net = NeuralNetClassifier(Noting, batch_size=8, max_epochs=1, random_state=0)
    with limited_threads(2):
        Noting.n_threads.clear()
        net.fit(X, np.arange(24) % 3)
        assert Noting.n_threads == {1 + is_much}
        Noting.n_threads.clear()
        net.predict(X[:8])
        assert Noting.n_threads == {1 + is_much}
