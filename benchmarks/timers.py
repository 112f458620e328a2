"""Timers around the functions of a library, for a profile of its parts.

Time is counted for the innermost function that has a timer. It is an error if a function is no
longer found under its name, or if a part of the profile was never called, so that no part is lost
when code moves.
"""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter

from stages import STAGES

from sktune.estimators import overrides

REST = "rest"


@dataclass(frozen=True)
class Timer:
    """A timer around the function at `path`, ``module:name`` or ``module:class.name``.

    `how` tells what is counted:

    - ``"self"``: the time without that of nested timers;
    - ``"whole"``: the time with that of nested timers, which then count nothing;
    - ``"outermost"``: as ``"whole"``, but nothing for calls within another timer.
    """

    part: str
    path: str
    how: str = "self"


class Stopwatch:
    """Seconds and calls of each part."""

    def __init__(self):
        self.seconds = Counter()
        self.calls = Counter()
        self.running = [REST]
        self.is_whole = False
        self.since = perf_counter()

    def charge(self):
        """Count the time since the last change for the part that runs."""
        now = perf_counter()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name, whole=False):
        self.charge()
        self.running.append(name)
        self.is_whole = whole
        try:
            yield
        finally:
            self.charge()
            self.running.pop()
            self.is_whole = False

    def wrap(self, function, timer):
        @functools.wraps(function)
        def timed(*args, **kwargs):
            if self.is_whole or (timer.how == "outermost" and self.running != [REST]):
                return function(*args, **kwargs)
            self.calls[timer.part] += 1
            with self.part(timer.part, timer.how != "self"):
                return function(*args, **kwargs)

        return timed


@contextmanager
def running(timers):
    """Run timers in a block, and yield the stopwatch that has their times at the end."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for timer in timers:
            owner, name = locate(timer)
            stack.callback(_put_back, owner, name, vars(owner).get(name))
            timed = watch.wrap(getattr(owner, name), timer)
            setattr(owner, name, timed)
            _excuse(stack, owner, name, timed)
        watch.since = perf_counter()
        yield watch
        watch.charge()
    silent = {timer.part for timer in timers} - watch.calls.keys()
    if silent:
        raise LookupError(
            f"nothing was counted for {sorted(silent)}: "
            "what is named in its timers is no longer called"
        )


def locate(timer):
    """Return the module or class that a timer's function is found in, and its name there."""
    module, _, path = timer.path.partition(":")
    *outer, name = path.split(".")
    try:
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"{timer.path}, timed as {timer.part!r}, has moved: {error}") from error
    return owner, name


def _excuse(stack, owner, name, timed):
    """Register a timed method as the class's own, since patched methods keep a net from fusion."""
    known = overrides._METHODS.get(owner)
    if known is not None:
        stack.callback(_restore, known, name, known.get(name))
        known[name] = timed


def _restore(known, name, before):
    if before is None:
        del known[name]
    else:
        known[name] = before


def _put_back(owner, name, own):
    # An inherited function has no entry of its own.
    if own is None:
        delattr(owner, name)
    else:
        setattr(owner, name, own)


STEPS = "compiled steps"
_BRIDGE = "sktune.bridge."
_ENGINE = "sktune.engine."
_NET = "sktune:NeuralNetClassifier"
_COPIES = [
    f"{_ENGINE}steps.base:Stacked{kind}.{name}"
    for kind in ("Net", "Optimizer")
    for name in ("select", "put_back")
]
# The parts of a fused search, the unit of a part's cost, and the functions that belong to it.
_OF_SEARCH = [
    ("planning and collecting", "fit", f"{_BRIDGE}calls:Call._train"),
    ("planning and collecting", "fit", f"{_BRIDGE}calls:Call._collect"),
    ("planning and collecting", "fit", f"{_BRIDGE}calls:Call._plan"),
    ("planning and collecting", "fit", f"{_ENGINE}executor:plan_groups", "whole"),
    ("planning and collecting", "fit", f"{_BRIDGE}collect:Collector.prepare"),
    # The steps of a Pipeline, which the yardsticks lack, and the checks and conversion of the rows.
    ("preprocessing", "fit", "sklearn.pipeline:Pipeline._fit"),
    ("preprocessing", "fit", "sktune.checks.inputs:check_rows"),
    ("preprocessing", "fit", f"{_BRIDGE}tables:Tables.convert"),
    ("preprocessing", "fit", f"{_BRIDGE}tables:Tables.add"),
    ("initialising", "fit", f"{_NET}.initialize"),
    ("initialising", "fit", f"{_BRIDGE}collect:Collector._follow"),
    ("initialising", "fit", f"{_ENGINE}steps.compiled:CompiledSteps.prepare"),
    ("initialising", "fit", f"{_ENGINE}steps.stacked:StackedSteps.prepare"),
    (STEPS, "fit-epoch", "sktune.engine.compiled.kernels:train_steps"),
    ("per-epoch bookkeeping", "fit-epoch", f"{_ENGINE}group:Group._close_epoch"),
    ("per-epoch bookkeeping", "fit-epoch", f"{_ENGINE}group:Group._retire"),
    # Lanes that are copied out and back.
    *(("per-epoch bookkeeping", "fit-epoch", path) for path in _COPIES),
    # The training without the parts above.
    ("loop over steps", "fit-epoch", f"{_ENGINE}executor:Trainer.train"),
    ("replay", "fit", f"{_BRIDGE}calls:Job.run"),
    ("scoring", "fit", "sklearn.model_selection._validation:_score"),
    ("refit", "refit", f"{_NET}.fit", "outermost"),
]
_UNITS = {part: unit for part, unit, *_ in _OF_SEARCH}


def search_timers():
    """Return the timers of a fused search in one thread."""
    return [Timer(part, *where) for part, _, *where in _OF_SEARCH]


def tell_parts(seconds, calls, n_fits, n_epochs):
    """Yield the lines of a table of the parts of a fused search."""
    total = sum(seconds.values())
    divisors = {"fit": n_fits, "fit-epoch": n_fits * n_epochs, "refit": 1}
    yield f"{'':<26}{'seconds':>9}{'share':>9}{'ms':>10} {'per':<10}{'calls':>8}"
    for part in [REST, *_UNITS]:
        for name in STAGES if part == STEPS else [part]:
            unit = _UNITS.get(part, "fit")
            whole = f"{seconds[name]:>9.3f}{seconds[name] / total:>9.1%}"
            cost = f"{1e3 * seconds[name] / divisors[unit]:>10.3f} {unit:<10}"
            yield f"{name:<26}{whole}{cost}{calls.get(part, ''):>8}"
