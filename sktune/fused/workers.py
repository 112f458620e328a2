"""Processes of one thread that train groups beside this one: in threads, small steps wait for each other's Python."""

import multiprocessing
from copy import copy
from dataclasses import replace
from functools import partial
from time import monotonic, perf_counter

import numpy as np
import torch

from sktune.data import rows_of
from sktune.fused.lanes import Lane
from sktune.fused.seam import ProcessPoolExecutor
from sktune.fused.train import Group, find_common_program

_TENSORS = ("state", "optimizer", "outputs")  # of an outcome
_IDLE = 60  # seconds that a process waits for the next search
_RATE = 6e10  # floating-point operations a second of one core in small products, to estimate by
_START, _GO_ON = 10.0, 1.0  # seconds of training from which processes pay: if they must import torch first, if not
_LARGE_STEP = 1 << 30  # operations of a step from which threads do as well
_LARGE_ROWS = 1 << 24  # numbers in a table that are better not sent to another process


class Workers:
    """The processes; there is one set of them, which waits a while for the next search."""

    def __init__(self):
        self.pool, self.size, self.used = None, 0, -_IDLE

    def are_worth_it(self, groups, size):
        """Tell whether these groups of fits are trained faster by processes than by threads."""
        lanes = [fit.lane for group in groups for fit in group]
        tables = [rows_of(lane.train)[0].X for lane in lanes]
        if multiprocessing.parent_process() is not None or any(type(lane) is not Lane for lane in lanes):
            return False
        if any(table.device.type != "cpu" or table.numel() > _LARGE_ROWS for table in tables):
            return False
        if any(find_common_program([group[0].lane]) for group in groups):
            return False  # its steps wait for no Python
        if max(len(group) * estimate_step(group[0].lane) for group in groups) > _LARGE_STEP:
            return False
        is_warm = self.size == size and monotonic() - self.used < _IDLE - 5
        return sum(map(estimate_seconds, lanes)) > (_GO_ON if is_warm else _START)

    def submit(self, lanes, size, low=None):
        """Have a group trained by one of `size` processes; return the future of what :func:`_train` returns."""
        if self.size != size:
            self.stop()
            self.pool, self.size = ProcessPoolExecutor(size, timeout=_IDLE), size
        self.used, lanes = monotonic(), _without_nets(lanes)
        try:
            return self.pool.submit(_train, lanes, low)
        except Exception:  # a process was killed, and the others with it
            self.pool = ProcessPoolExecutor(size, timeout=_IDLE)
            return self.pool.submit(_train, lanes, low)

    def stop(self):
        """End the processes now."""
        pool, self.pool, self.size = self.pool, None, 0
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)


def estimate_step(lane):
    """Return about how many operations a step of a lane takes."""
    return 6 * max(lane.batches.sizes) * sum(p.numel() for p in lane.module.parameters())


def estimate_seconds(lane):
    """Return about how long a lane trains on one core."""
    n_steps = lane.n_epochs * len(lane.batches.sizes)
    return n_steps * (estimate_step(lane) / _RATE + 1.5e-5)


def _train(lanes, low):
    """Train lanes in this process; return their outcomes and the seconds that it took."""
    torch.set_num_threads(1)
    began = perf_counter()
    return [_packed(outcome) for outcome in Group(lanes, low=low).train()], perf_counter() - began


def _packed(outcome):
    """Return an outcome whose tensors are arrays: sent as tensors, each takes the memory that it is a view of along."""
    return replace(outcome, **{name: _each(_to_array, getattr(outcome, name)) for name in _TENSORS})


def unpacked(outcome):
    """Return an outcome as it was before it was sent."""
    return replace(outcome, **{name: _each(_to_tensor, getattr(outcome, name)) for name in _TENSORS})


def _each(convert, values):
    if isinstance(values, dict):
        return {name: convert(value) for name, value in values.items()}
    return values and [convert(value) for value in values]


def _to_array(value):
    is_known = isinstance(value, torch.Tensor) and value.dtype != torch.bfloat16  # which NumPy has not
    return value.numpy() if is_known else value


def _to_tensor(value):
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _without_nets(lanes):
    """Return copies of lanes that travel light: only the first net says how outputs and targets match."""
    copies = []
    for lane in lanes:
        light = copy(lane)
        light.net = None
        if lane.factors is not None:
            of_epochs = [lane.factors(epoch, len(lane.batches.sizes)) for epoch in range(lane.n_epochs)]
            light.factors = partial(_look_up, of_epochs)
        if copies:
            light.match = None
        copies.append(light)
    return copies


def _look_up(of_epochs, epoch, n_steps):
    return of_epochs[epoch]
