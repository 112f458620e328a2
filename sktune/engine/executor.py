"""Groups of lanes over threads, within the memory of the device; and what to tell of it."""

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch

from sktune.engine.curves import Curves
from sktune.engine.group import Group, Stopped, find_common_program
from sktune.engine.lanes import Outcome
from sktune.runtime.threads import few_threads, limited_threads


@dataclass
class FusionReport:
    """How the fits of a search were trained; ``print`` it for a summary."""

    groups: list = field(
        default_factory=list
    )  # of dicts: lanes (fits trained together), seconds, device, compiled
    alone: list = field(
        default_factory=list
    )  # of dicts: candidate, split and reason of each fit one at a time
    curves: Curves = field(
        default_factory=Curves
    )  # of each epoch: candidate, split, epoch, losses, lr
    seconds: float = 0.0  # wall time of training the groups

    def add(self, fit):
        """Take note of a fit that is over."""
        candidate, split = fit.place
        if fit.outcome is None:
            # Equal reasons are one text, which a pickle holds once.
            self.alone.append(
                {"candidate": candidate, "split": split, "reason": sys.intern(str(fit.reason))}
            )
            self._leave_group(fit)
        else:
            self.curves.add(candidate, split, fit.outcome.curve)

    def _leave_group(self, fit):
        """Count a fit that was trained with others, in vain, no more among them."""
        group, fit.group = fit.group, None
        if group is None:
            return
        group["lanes"] -= 1
        if not group["lanes"]:
            self.groups = [other for other in self.groups if other is not group]

    def __str__(self):
        n_lanes = sum(group["lanes"] for group in self.groups)
        n_compiled = sum(group["compiled"] for group in self.groups)
        how = f", {n_compiled} of them by compiled steps" if n_compiled else ""
        lines = [f"{n_lanes} fits fused in {len(self.groups)} groups{how}, {self.seconds:.1f} s"]
        lines += [f"{len(self.alone)} fits one at a time"] if self.alone else []
        reasons = [fit["reason"] for fit in self.alone]
        lines += [f"  {reasons.count(reason)}: {reason}" for reason in dict.fromkeys(reasons)]
        return "\n".join(lines)


_FEWEST = 4  # lanes that are worth to be trained as one
_RATE = 6e10  # floating-point operations a second of one core in small products, to estimate by


class Trainer:
    """Trains groups of fits, spread over threads that compute with a share of the cores each."""

    def __init__(self, n_workers, report, bar, precision=None):
        self.n_workers, self.report, self.bar, self.precision = n_workers, report, bar, precision
        self.low = torch.bfloat16 if precision == "bf16" else None
        self.stop = threading.Event()
        self.best_loss = np.inf

    def train(self, groups):
        """Train all; set each fit's `outcome`, or `reason` if it has to run one at a time after all."""
        began = perf_counter()
        groups = _divide(groups, self.n_workers)
        n_workers = min(self.n_workers, len(groups))
        for device in {_device_of(group) for group in groups}:
            if device.type == "cuda":
                torch.cuda.synchronize(
                    device
                )  # groups compute on streams of their own: their rows are there
        share = max(1, torch.get_num_threads() // max(1, n_workers))
        with (
            limited_threads(share),
            _products(self.precision),
        ):  # in this thread, too: it multiplies as well
            if n_workers > 1:
                self._train_in_threads(groups, n_workers, share)
            else:
                for group in groups:
                    self._train_group(group)
        self.report.seconds += perf_counter() - began

    def _train_in_threads(self, groups, n_workers, share):
        def train(group):
            with limited_threads(share):
                self._train_group(group)

        pool = ThreadPoolExecutor(n_workers)
        try:
            for future in [pool.submit(train, group) for group in groups]:
                future.result()
        finally:
            self.stop.set()
            pool.shutdown(cancel_futures=True)

    def _train_group(self, fits):
        began, failure = perf_counter(), None
        try:
            few = few_threads(fits[0].lane.module, max(fits[0].lane.batches.sizes))
            with few, own_stream(_device_of(fits)):
                outcomes, is_compiled = self._run_group(fits)
        except Stopped:
            return
        except Exception as error:
            failure = error.with_traceback(None)  # which would keep the group's tensors
        if failure is not None:
            self._recover(fits, failure)
            return
        seconds = perf_counter() - began
        row = {"lanes": len(fits), "seconds": seconds, "device": str(_device_of(fits))}
        row["compiled"] = is_compiled
        self.report.groups.append(row)
        for fit, outcome in zip(fits, outcomes, strict=True):
            fit.group = row
            fit.seconds = seconds / len(fits)
            if outcome.error is None or fit.lane.must_be_finite:
                fit.outcome = outcome
            else:
                fit.reason = "it left the finite numbers"

    def _run_group(self, fits):
        group = Group([fit.lane for fit in fits], self._on_epoch, self.stop, self.low)
        return group.train(), group.program is not None

    def _recover(self, fits, error):
        """Halve a group that fails, be it that the device cannot hold it or that one lane is to blame."""
        if len(fits) > 1:
            torch.cuda.empty_cache()
            self._train_group(fits[: len(fits) // 2])
            self._train_group(fits[len(fits) // 2 :])
        elif _is_memory_error(error):
            fits[0].outcome = Outcome(error=error)
        else:
            # or the user's module or data did: that shows when the fit runs one at a time
            fits[0].failure, fits[0].reason = error, "the fused engine failed"

    def _on_epoch(self, n_alive, least_loss):
        self.best_loss = np.fmin(self.best_loss, least_loss)
        self.bar.update(n_alive)
        self.bar.set_postfix(lanes=n_alive, best_loss=f"{self.best_loss:.3g}", refresh=False)


@contextmanager
def _products(precision):
    """Let a GPU's products of float32 have the precision of TF32, if that is asked for."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _device_of(fits):
    return next(fits[0].lane.module.parameters()).device


@contextmanager
def own_stream(device):
    """On a GPU, compute beside what other threads compute; elsewhere this is nothing."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        stream.synchronize()


def _divide(groups, n_workers):
    """Return the groups, the longest first, divided so that no worker has to wait long for another's last one.

    On a GPU they stay whole: there it is the lanes of a group that are computed at once.
    """

    def cost(fits):
        return sum(_estimate_seconds(fit.lane) for fit in fits)

    groups = sorted(groups, key=cost, reverse=True)
    most = sum(map(cost, groups)) / (2 * n_workers)
    n_workers = 1 if groups and _device_of(groups[0]).type != "cpu" else n_workers
    while (
        n_workers > 1
        and groups
        and cost(groups[0]) > most
        and 1 < len(groups[0]) >= 2 * _fewest_lanes(groups[0])
    ):
        longest, *others = groups
        groups = sorted([longest[::2], longest[1::2], *others], key=cost, reverse=True)
    return groups


def _fewest_lanes(fits):
    """Return how many lanes are still worth a worker of their own."""
    with limited_threads(1):
        return 1 if find_common_program([fits[0].lane]) else _FEWEST


def _estimate_seconds(lane):
    """Return about how long a lane trains on one core."""
    operations = 6 * max(lane.batches.sizes) * sum(p.numel() for p in lane.module.parameters())
    return lane.n_epochs * len(lane.batches.sizes) * (operations / _RATE + 1.5e-5)


def conclude_failure(fit, has_failed):
    """Say whose fault it was that the training of a fit failed, once the fit has run alone."""
    error, fit.failure = fit.failure, None
    if has_failed:
        fit.reason = "its training fails, alone as well as together with others"
    else:
        message = (
            f"the fused engine failed: {type(error).__name__}: {error}; the fit ran one at a time"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _is_memory_error(error):
    texts = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
