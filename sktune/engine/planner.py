"""Which fits are trained together, and how their steps are taken."""

from copy import copy
from dataclasses import dataclass, field, replace

import torch

from sktune.engine.group import choose_backend
from sktune.engine.steps.base import StepBackend, StepOptions
from sktune.modules.structure import structure_of
from sktune.modules.work import needs_one_thread
from sktune.runtime.threads import limited_threads
from sktune.training.optimizers import OPTIMIZERS

# Lanes that fill a core: so many lanes of one stream make groups that share batches.
_LANES_THAT_FILL_A_CORE = 8
# The lanes of a group beyond which more bring no speed.
_MOST_LANES = {"cpu": 32}
_MOST_LANES_ELSEWHERE = 512
# The fewest lanes that are worth training together, where steps are stacked.
_FEWEST_STACKED_LANES = 4
# The fewest lanes of a group for which a GPU of its own is worth its launches.
_FEWEST_LANES_OF_A_GPU = 64
# For estimates: the floating-point operations of one core in a second of small products, and the
# seconds that a step takes beside its products.
_OPERATIONS_PER_SECOND = 6e10
_STEP_SECONDS = 1.5e-5


@dataclass
class GroupPlan:
    """Fits that are trained together, and how.

    `fits` are objects with a `spec`; `backend` is as its ``blocker`` has left it; `blockers` say
    why other backends were not taken, by their names.
    """

    fits: list
    tables: dict
    backend: StepBackend
    options: StepOptions = field(default_factory=StepOptions)
    blockers: dict = field(default_factory=dict)

    @property
    def specs(self):
        """The specs of the fits."""
        return [fit.spec for fit in self.fits]

    @property
    def states(self):
        """Where the trainings of the fits go on."""
        return [training.start and training.start.state for training in self.fits]

    @property
    def device(self):
        """Where the fits are trained."""
        return torch.device(self.fits[0].spec.device)

    def halve(self):
        """Return two plans of half of the fits each."""
        return [replace(self, fits=self.fits[::2]), replace(self, fits=self.fits[1::2])]

    def new_backend(self):
        """Return a backend for one training."""
        return copy(self.backend)


def group_key(spec, tables):
    """Return what fits that are trained together have in common, beside their numbers of rows.

    It is equal within this process only.
    """
    rows = tables[spec.rows.table]
    options = spec.optimizer.options
    shared = OPTIMIZERS[spec.optimizer.type].shared
    criterion = spec.loss.criterion
    batch_size = spec.sampling.batch_size
    if batch_size >= spec.rows.n_train:
        # all rows at once, how many these may be
        batch_size = None
    return (
        (rows.X.shape[1:], rows.X.dtype, rows.target.shape[1:], rows.target.dtype),
        (rows.X.device, spec.device),
        (batch_size, type(spec.sampling), spec.rows.valid is not None),
        (
            spec.loss.match,
            spec.loss.n_classes,
            spec.is_regressor,
            spec.n_outputs,
            spec.narrow_to,
            spec.must_be_finite,
            # workers may have other devices than this process
            spec.is_auto,
        ),
        (spec.optimizer.type, *((name, options.get(name)) for name in shared)),
        (structure_of(criterion), *(str(buffer.tolist()) for buffer in criterion.buffers())),
        structure_of(spec.module.module),
    )


def plan_groups(
    fits,
    tables,
    *,
    max_lanes=None,
    n_workers=1,
    n_threads=1,
    options=None,
    has_own_devices=False,
    order=None,
    find_type=None,
):
    """Arrange fits in groups; give those that cannot be trained together a `reason`.

    Parameters
    ----------
    fits : list of objects with `spec`, `group_key` and `reason`
    tables : dict of Rows
    max_lanes : int or None
        Fits of a group at most.
    n_workers : int
        Groups that are trained at once at most.
    n_threads : int
        The threads that all workers share.
    options : StepOptions or None
    has_own_devices : bool
        Whether each worker has a GPU of its own, if any; else all workers share one.
    order : callable or None
        ``order(fit)`` is a number, equal for fits that are to be complete together: groups are then
        of few such numbers each, so that what is lost is little where the training is broken off.
    find_type : callable or None
        ``find_type(spec)`` is the type of the device on which a fit will be trained, such as
        ``"cuda"``; None is that of its own.

    Returns
    -------
    plans : list of GroupPlan
        Those that take longest first, or those of the lowest `order`.
    """
    # Whether a single thread would do decides how finely fits can be divided.
    options = replace(options or StepOptions(), n_threads=1)
    plans = []
    for members in _by_key(fits):
        for alike, backend, blockers in _choose_backends(members, tables, options):
            for fit in alike:
                fit.reason = "" if backend else list(blockers.values())[-1]
            if backend:
                plans += [
                    GroupPlan(part, tables, backend, options, blockers)
                    for part in _divide_by_rows(alike, max_lanes, order, find_type)
                ]
    plans = _balance(plans, n_workers, has_own_devices, find_type)
    if order is not None:
        plans.sort(key=lambda plan: min(map(order, plan.fits)))
    n_workers = max(1, min(n_workers, len(plans)))
    return [_settle_threads(plan, max(1, n_threads // n_workers)) for plan in plans]


def _settle_threads(plan, n_threads):
    """Let a plan use more threads where its products are large enough, and steps that can."""
    spec = plan.fits[0].spec
    row_shape = plan.tables[spec.rows.table].X.shape[1:]
    n_rows = max(spec.batch_sizes)
    if n_threads == 1 or needs_one_thread(spec.module.module, n_rows, row_shape):
        return plan
    options = replace(plan.options, n_threads=n_threads)
    with limited_threads(n_threads):
        backend, blockers = choose_backend(plan.specs, plan.tables, options)
    return replace(plan, options=options, backend=backend, blockers=blockers)


def _by_key(fits):
    """Return lists of the fits that are alike."""
    alike = {}
    for fit in fits:
        alike.setdefault(fit.group_key, []).append(fit)
    return list(alike.values())


def _choose_backends(members, tables, options):
    """Yield fits that are alike, with their backend and the blockers of others.

    They are those given, but where a module has weights that no gradient of the loss reaches: then
    fits whose penalties train these weights are others than fits without penalties.
    """
    backend, blockers = choose_backend([fit.spec for fit in members], tables, options)
    parts = {}
    for fit in members:
        parts.setdefault(fit.spec.has_penalties, []).append(fit)
    if backend is None or not backend.has_idle_weights or len(parts) == 1:
        yield members, backend, blockers
        return
    for part in parts.values():
        yield part, *choose_backend([fit.spec for fit in part], tables, options)


def _divide_by_rows(members, max_lanes, order, find_type):
    """Yield groups of fits that are alike, whose numbers of rows differ by less than a batch.

    Fits on the same rows stand side by side.
    """
    members = sorted(members, key=lambda fit: fit.spec.rows.n_train)
    while members:
        first = members[0].spec
        most = first.rows.n_train + max(first.batch_sizes)
        together = [fit for fit in members if fit.spec.rows.n_train <= most]
        members = members[len(together) :]
        yield from _divide_evenly(together, max_lanes, order, find_type)


def count_lanes(device):
    """Return how many lanes a group has at most on a kind of device, such as ``"cpu"``."""
    return _MOST_LANES.get(device, _MOST_LANES_ELSEWHERE)


def _divide_evenly(fits, max_lanes, order, find_type):
    """Yield groups of at most so many lanes.

    On a CPU, fits on the same rows that are many enough stay among themselves: they share batches.
    With an `order`, these groups have no more lanes than fill a core.
    """
    spec = fits[0].spec
    device = torch.device(spec.device).type if find_type is None else find_type(spec)
    most = max_lanes or count_lanes(device)
    if order is not None:
        fits = sorted(fits, key=order)
        most_apart = min(most, _LANES_THAT_FILL_A_CORE)
    else:
        most_apart = most
    streams = {}
    for fit in fits:
        streams.setdefault((fit.spec.rows, fit.spec.seed), []).append(fit)
    apart = []
    rest = []
    for members in streams.values():
        if device == "cpu" and len(members) >= _LANES_THAT_FILL_A_CORE:
            apart.append(members)
        else:
            rest += members
    for members in [*apart, rest]:
        n_parts = -(-len(members) // (most if members is rest else most_apart))
        for n in range(n_parts):
            start = len(members) * n // n_parts
            stop = len(members) * (n + 1) // n_parts
            yield members[start:stop]


def _balance(plans, n_workers, has_own_devices, find_type):
    """Return plans, the longest first, divided so that no worker waits long for another's last one.

    On a GPU that the workers share they stay whole: there it is the lanes of a group that are
    computed at once.
    """
    plans = sorted(plans, key=_estimate_plan, reverse=True)
    if not plans or n_workers == 1:
        return plans
    device = plans[0].device.type if find_type is None else find_type(plans[0].fits[0].spec)
    is_on_cpu = device == "cpu"
    if not is_on_cpu and not has_own_devices:
        return plans
    most = sum(map(_estimate_plan, plans)) / (2 * n_workers)
    while _can_divide(plans[0], is_on_cpu) and _estimate_plan(plans[0]) > most:
        longest, *others = plans
        plans = sorted([*longest.halve(), *others], key=_estimate_plan, reverse=True)
    return plans


def _can_divide(plan, is_on_cpu):
    """Tell whether halves of a group are still worth a worker of their own."""
    fewest = 1 if plan.backend.goes_lane_by_lane else _FEWEST_STACKED_LANES
    if not is_on_cpu:
        fewest = _FEWEST_LANES_OF_A_GPU
    return len(plan.fits) > 1 and len(plan.fits) >= 2 * fewest


def _estimate_plan(plan):
    return sum(map(estimate_seconds, plan.specs))


def estimate_seconds(spec):
    """Return about how long a fit trains on one core."""
    n_parameters = sum(p.numel() for p in spec.module.module.parameters())
    n_operations = 6 * spec.sampling.batch_size * n_parameters
    n_steps = -(-spec.rows.n_train // spec.sampling.batch_size)
    step_seconds = n_operations / _OPERATIONS_PER_SECOND + _STEP_SECONDS
    return spec.n_epochs * n_steps * step_seconds
