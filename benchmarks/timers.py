"""Where the time goes: timers around a library's functions, put there from outside.

A second counts for the innermost function that has a timer. A name that is no longer where it was is an error, and so
is a part of the time that nothing was counted for: a profile must not lose what has moved.
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

    `how` is ``"self"``: what nested timers take is theirs; ``"whole"``: it is not; or ``"outermost"``: as ``"whole"``,
    but calls within another timer have none.
    """

    part: str
    path: str
    how: str = "self"


class Stopwatch:
    """Seconds and calls of each part."""

    def __init__(self):
        self.seconds, self.calls = Counter(), Counter()
        self.running, self.is_whole, self.since = [REST], False, perf_counter()

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
    """Let timers run; the stopwatch that this yields has their times in the end."""
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
    if silent := {timer.part for timer in timers} - watch.calls.keys():
        raise LookupError(
            f"nothing was counted for {sorted(silent)}: what is named in its timers is no longer called"
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
    """Let a timed method count as the class's own: one that is patched is a reason to train a net alone."""
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
    if own is None:  # inherited
        delattr(owner, name)
    else:
        setattr(owner, name, own)


STEPS = "compiled steps"
_BRIDGE, _ENGINE = "sktune.bridge.", "sktune.engine."
_NET = "sktune:NeuralNetClassifier"
_COPIES = [
    f"{_ENGINE}steps.base:Stacked{kind}.{name}"
    for kind in ("Net", "Optimizer")
    for name in ("select", "put_back")
]
# parts of a fused search, the unit that a part's cost is told for, and where it is spent
_OF_SEARCH = [
    ("planning and collecting", "fit", f"{_BRIDGE}calls:Call._train"),
    ("planning and collecting", "fit", f"{_BRIDGE}calls:Call._collect"),
    ("planning and collecting", "fit", f"{_BRIDGE}calls:Call._plan"),
    ("planning and collecting", "fit", f"{_ENGINE}executor:plan_groups", "whole"),
    ("planning and collecting", "fit", f"{_BRIDGE}collect:Collector.prepare"),
    # steps of a pipeline, of which the yardsticks have none; and the rows, checked and converted
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
    # lanes copied out and back
    *(("per-epoch bookkeeping", "fit-epoch", path) for path in _COPIES),
    # what the parts above leave of the training
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
            row = f"{name:<26}{seconds[name]:>9.3f}{seconds[name] / total:>9.1%}"
            yield f"{row}{1e3 * seconds[name] / divisors[unit]:>10.3f} {unit:<10}{calls.get(part, ''):>8}"
