"""The fits of a task, prepared up to their training."""

import logging
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from numbers import Integral

from sklearn.pipeline import Pipeline
from torch import nn

from sktune.bridge.blockers import why_alone, why_alone_initialized, why_pipeline_alone
from sktune.bridge.pipelines import Recorder, fingerprint, lend
from sktune.bridge.reading import (
    check_follower,
    find_fixed_settings,
    follow_batch_size,
    follow_spec,
    make_twin,
    notice_first_outputs,
    read_spec,
)
from sktune.bridge.seam import PlannedFit
from sktune.bridge.skorch_nets import (
    read_rows,
    read_skorch_spec,
    stopped_before_training,
    why_told,
)
from sktune.bridge.tables import Tables
from sktune.engine.planner import group_key
from sktune.engine.specs import FitResult, FitSpec
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.components import BUILT
from sktune.estimators.hook import FitHook
from sktune.modules.mlp import MLP
from sktune.runtime.dtypes import floating_dtype
from sktune.runtime.generators import Tracker
from sktune.runtime.recorded_warnings import recorded_warnings
from sktune.runtime.seeds import draw_seed
from sktune.runtime.threads import limited_threads
from sktune.training.rows import rows_of

_logger = logging.getLogger(__name__)

# Criteria of torch's that draw no random numbers when they are built.
_KNOWN_CRITERIA = (
    *(nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss, nn.NLLLoss),
    *(nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
)
_FAILS = "its fit fails before the training begins"
# Numbers that the outputs for test rows may be, of all fits of a search.
_MOST_OUTPUTS = 1 << 24


@dataclass
class Template:
    """An initialized net from which fits begin alike, and what its preparation has set in it.

    `attributes` are those that an unfitted net does not have; its parts (module, optimizer and the
    like) are not among them.
    """

    net: object
    attributes: dict

    @classmethod
    def of(cls, net, unfitted):
        """Return that of an initialized net, which was a twin of the `unfitted` one."""
        before = vars(unfitted)
        attributes = {}
        for name, value in vars(net).items():
            is_new = name not in before or before[name] is not value
            if is_new and name not in BUILT and name != "_narrow_to":
                attributes[name] = value
        return cls(net, attributes)


@dataclass
class Fit:
    """A fit that a task will make, prepared up to its training.

    Parameters
    ----------
    place : tuple of (int or None, int or None)
        The numbers of candidate and split.
    key : object
        It tells the rows of the fit.
    net : object
        The task's own net; it stays unfitted until the task runs.
    pipeline : Pipeline or None
        The pipeline that ends in the net.
    spec : FitSpec or None
        What is trained, unless the fit stays out.
    template : Template or None
        What the net becomes beside that.
    group_key : object
        It is equal for fits that can be trained together.
    reason : str
        Why the fit stays out.
    result : FitResult or None
        What was trained.
    test_rows : tuple of (ndarray, ndarray), or ()
        A table, and which of its rows the fitted net will be asked for.
    steps : list of tuple of (int, transformer)
        The fitted steps of the pipeline, and how many rows each returned.
    table : object
        What the steps made of the rows, as long as the net may have to be trained alone.
    caught : list
        What the preparation warned of, the steps first: they warned `n_step_warnings` times.
    seconds : float
        The fit's share of the training's time.
    group : dict or None
        What the report tells of those that it was trained with.
    failure : Exception or None
        An error in its training, which may be the engine's fault or the user's.
    draws : bool
        Whether the preparation drew from the generators that the whole process shares.
    before, between, after : tuple or None
        The states of these generators when the preparation began, after the steps, and in the end;
        None where it drew nothing.
    """

    place: tuple = (None, None)
    key: object = None
    net: object = None
    pipeline: object = None
    spec: FitSpec | None = None
    template: Template | None = None
    group_key: object = None
    reason: str = ""
    result: FitResult | None = None
    test_rows: tuple = ()
    steps: list = field(default_factory=list)
    table: object = None
    caught: list = field(default_factory=list)
    n_step_warnings: int = 0
    seconds: float = 0.0
    group: dict | None = None
    failure: Exception | None = None
    draws: bool = False
    before: tuple | None = None
    between: tuple | None = None
    after: tuple | None = None
    # equal to nothing of another fit
    identity: object = field(default_factory=object)


class Collector:
    """Prepares the fits of a call.

    Fits on the same rows share their table, and nets that differ in nothing but some numbers begin
    with the same weights: only the first of them is initialized.

    Parameters
    ----------
    device : str or None
        Where all nets are trained; None is where each of them says.
    """

    def __init__(self, device=None):
        self.device = device
        self.tables = Tables()
        # fitted steps of pipelines, by what they were fitted to
        self.steps = {}
        self.skorch_rows = {}
        # the first of the fits that begin alike, by their rows and fixed settings
        self.first = {}
        # specs and group keys with other sizes of batches, by the first fit and the size
        self.other_batches = {}
        self.n_outputs = 0
        self.tracker = Tracker()

    def prepare(self, planned_fits, seed=None):
        """Return a :class:`Fit` for each planned one of a task, whose estimator stays as it is.

        `seed` is for nets of skorch's, which have none of their own.
        """
        draft = None
        fits = []
        for n, planned in enumerate(planned_fits):
            if self.device is not None:
                net_of(planned.estimator).set_params(device=self.device)
            # a second draft goes on where the first has ended
            draft = _draft(planned.estimator if draft is None else draft)
            fits.append(self._prepare(planned, draft, seed and seed + n))
        return fits

    def _prepare(self, planned: PlannedFit, draft, seed):
        estimator = planned.estimator
        net = net_of(estimator)
        pipeline = None if net is estimator else estimator
        fit = Fit(net=net, pipeline=pipeline, key=planned.key)
        fold = planned.key
        if pipeline is not None:
            # what the steps make of the rows
            settings = {**vars(draft), "steps": draft.steps[:-1], "memory": None}
            fold = (*fold, fingerprint(settings))
        start = (fold, find_fixed_settings(net))
        fit.reason = why_alone(net) or why_pipeline_alone(pipeline)
        if not fit.reason and start in self.first:
            self._follow(fit, self.first[start])
        else:
            self._lead(fit, planned, draft, fold, seed)
        self._keep(fit, start, planned)
        return fit

    def _follow(self, fit, first):
        """Prepare a fit that begins as another one does."""
        try:
            check_follower(fit.net, first.net)
            spec, fit.group_key = self._follow_batch_size(fit.net, first)
            fit.spec = follow_spec(spec, fit.net)
        except Exception:
            _logger.debug("a fit cannot be prepared", exc_info=True)
            fit.reason = _FAILS
            return
        fit.template = first.template
        fit.steps = first.steps
        fit.caught = first.caught
        fit.table = first.table
        fit.n_step_warnings = first.n_step_warnings

    def _follow_batch_size(self, net, first):
        """Return the spec of the first fit with a net's size of batches, and its group key."""
        if net.batch_size == first.net.batch_size:
            return first.spec, first.group_key
        key = (id(first), net.batch_size)
        if key not in self.other_batches:
            spec = follow_batch_size(first.spec, net, first.template.net, self.tables)
            self.other_batches[key] = (spec, group_key(spec, self.tables.by_name))
        return self.other_batches[key]

    def _lead(self, fit, planned, draft, fold, seed):
        """Prepare a fit by running it up to its training, and tell whether that draws numbers."""
        draws_nothing = _draws_nothing(fit)
        # a task may have drawn since the fit before, to split its rows
        if not draws_nothing and self.tracker.has_moved():
            fit.draws = True
        fit.before = self.tracker.states
        if fit.reason:
            _draw_as(fit)
        else:
            self._try_draft(fit, planned, draft, fold, seed)
        if not draws_nothing and self.tracker.has_moved():
            fit.draws = True
        fit.after = self.tracker.states

    def _try_draft(self, fit, planned, draft, fold, seed):
        """Run the fit of a draft; where that fails, the fit will fail once more in its own place."""
        try:
            self._run_draft(fit, planned, draft, fold, seed)
        except Exception:
            _logger.debug("a fit cannot be prepared", exc_info=True)
            fit.reason = _FAILS
        if fit.pipeline is not None:
            steps = [step for _, step in fit.pipeline.steps[:-1]]
            n_steps = sum(step not in (None, "passthrough") for step in steps)
            if len(fit.steps) < n_steps:
                fit.table = None

    def _run_draft(self, fit, planned, draft, fold, seed):
        net = net_of(draft)
        X = planned.X
        if fit.pipeline is not None:
            X = lend(X)
            draft.memory = Recorder(fit, self.steps, fit.pipeline.memory, self.tracker)
        # the arguments of the training loop
        found = []
        if isinstance(net, NetworkEstimator):
            vars(net)["_hook"] = Collecting(found, self._converter(net, fit, fold, planned))
            stopped = nullcontext()
            read = self._read
        else:
            stopped = stopped_before_training(net, found, seed)
            read = self._read_skorch
        arguments = (X,) if planned.y is None else (X, planned.y)
        with recorded_warnings() as fit.caught, stopped:
            draft.fit(*arguments, **planned.params)
        vars(net).pop("_hook", None)
        told, *rows = found[0]
        if told:
            fit.reason = told
            return
        # the rows are gathered once: to start more threads takes longer
        with limited_threads(1):
            read(fit, net, fold, planned, *rows)
        if fit.spec is not None:
            fit.template = Template.of(net, fit.net)
            fit.group_key = group_key(fit.spec, self.tables.by_name)

    def _converter(self, net, fit, fold, planned):
        """Return what converts the table of a net; that of a pipeline's net is none of the user's."""
        if fit.pipeline is not None:
            planned = None
        return lambda X: self.tables.convert(net, _fold_of(fit, fold), planned, X)

    def _read(self, fit, net, fold, planned, dataset):
        """Read the spec of an initialized net of sktune's, or find a reason why there is none."""
        rows, _ = rows_of(dataset)
        fit.reason = why_alone_initialized(net, rows)
        if fit.reason:
            return
        fit.spec = read_spec(net, dataset, planned, self.tables)
        with recorded_warnings() as caught:
            notice_first_outputs(net, fit.spec, self.tables)
        fit.caught = [*fit.caught, *caught]

    def _read_skorch(self, fit, net, fold, planned, train, valid, generator_state):
        """Read the spec of an initialized net of skorch's, or find a reason why there is none."""
        key = (_fold_of(fit, fold), floating_dtype(net.module_), net.device)
        if key not in self.skorch_rows:
            self.skorch_rows[key] = read_rows(net, train)
        rows = self.skorch_rows[key]
        fit.reason = why_alone_initialized(net, rows)
        if fit.reason:
            return
        spec = read_skorch_spec(net, self.tables, rows, train, valid, generator_state)
        if any(spec.dropout) and str(net.device) != "cpu":
            fit.reason = "its dropout draws from the device's generator"
        else:
            fit.spec = spec

    def _keep(self, fit, start, planned):
        """Take note of a fit that can be fused, and of the test rows that it will be asked for."""
        if fit.spec is None:
            return
        if not fit.draws:
            self.first.setdefault(start, fit)
        if not fit.spec.runs_user_code:
            # it will not have to be trained alone
            fit.table = None
        rows = fit.spec.rows
        if rows.test is not None:
            self.n_outputs += len(rows.test) * fit.template.net.n_outputs_
            if self.n_outputs <= _MOST_OUTPUTS:
                fit.test_rows = (planned.whole, rows.test.numpy())
            else:
                fit.spec = replace(fit.spec, keeps_outputs=False)


class Collecting(FitHook):
    """Stops the fit of a net where its training would begin.

    `found` gets the arguments of the training loop, and `convert` converts the table.
    """

    forgets_given_table = True

    def __init__(self, found, convert):
        self.found = found
        self.convert = convert

    def convert_table(self, net, X):
        """Return a table as the module takes it, shared with other fits."""
        return self.convert(X)

    def replace_training(self, net, dataset, epochs, fit_params):
        """Take the arguments of the training loop, and why they keep the fit out of a group."""
        self.found.append((why_told(epochs, **fit_params), dataset))
        return True


def _fold_of(fit, fold):
    """Return what tells the rows that the net gets.

    Those of steps that have drawn random numbers are no other fit's.
    """
    return (*fit.key, fit.identity) if fit.draws else fold


def _draws_nothing(fit):
    """Tell whether no code but sktune's and torch's prepares a fit, and its seed is given."""
    net = fit.net
    is_ours = type(net).__module__.startswith("sktune.")
    is_known = is_ours and net.module is MLP and net.criterion in _KNOWN_CRITERIA
    return is_known and fit.pipeline is None and isinstance(net.random_state, Integral)


def _draw_as(fit):
    """Draw the seed of a net that is not prepared, for others to draw theirs after it."""
    is_ours = isinstance(fit.net, NetworkEstimator)
    if is_ours and fit.pipeline is None and fit.net.random_state is None:
        draw_seed(None)


def net_of(estimator):
    """Return what an estimator is, or a pipeline ends in."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _draft(estimator):
    """Return a twin of an estimator, which can be fitted in its place."""
    net = make_twin(net_of(estimator))
    if isinstance(net, NetworkEstimator):
        net.random_state = deepcopy(net.random_state)
    if not isinstance(estimator, Pipeline):
        return net
    draft = make_twin(estimator)
    draft.steps = [*estimator.steps[:-1], (estimator.steps[-1][0], net)]
    draft.verbose = False
    return draft
