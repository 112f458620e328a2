"""The fits of a task, prepared up to their training."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from numbers import Integral

from torch import nn

from sktune.bridge.blockers import why_alone, why_alone_initialized, why_pipeline_alone
from sktune.bridge.fits import Fit, Template, make_draft, net_of
from sktune.bridge.listening.callbacks import make_telling, why_callbacks_alone
from sktune.bridge.pipelines import Recorder, fingerprint, lend
from sktune.bridge.reading import (
    check_follower,
    find_fixed_settings,
    follow_batch_size,
    follow_spec,
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
from sktune.bridge.watching.served import (
    list_settings,
    needs_watching,
    why_refused_initialized,
)
from sktune.bridge.watching.watcher import make_follower, make_watcher, muted
from sktune.engine.planner import group_key
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.hook import FitHook
from sktune.estimators.overrides import find_clips
from sktune.modules.mlp import MLP
from sktune.runtime.devices import resolve_device
from sktune.runtime.dtypes import floating_dtype
from sktune.runtime.generators import Tracker
from sktune.runtime.recorded_warnings import recorded_warnings
from sktune.runtime.seeds import draw_seed
from sktune.runtime.threads import limited_threads
from sktune.training.rows import rows_of

_logger = logging.getLogger(__name__)

# Criteria of torch's that draw no random numbers when they are built.
_KNOWN_CRITERIA = (
    nn.CrossEntropyLoss,
    nn.MSELoss,
    nn.BCEWithLogitsLoss,
    nn.NLLLoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
)
_FAILS = "its fit fails before the training begins"
# How many numbers may be kept as outputs for the test rows, over all fits of a search.
_MOST_OUTPUTS = 1 << 24


class Collector:
    """Prepares the fits of a call.

    Fits on the same rows share their table. Nets that differ only in settings such as the learning
    rate begin with the same weights: only the first of them is initialized, and the others follow.

    Parameters
    ----------
    device : str or None
        Where all nets are trained; None leaves that to each net.
    whole_tables : WholeTables or None
        What earlier calls of the search have converted.
    """

    def __init__(self, device=None, whole_tables=None):
        self.device = device
        self.tables = Tables(whole_tables)
        # fitted steps of pipelines, by the steps' settings and the rows that they were fitted to
        self.steps = {}
        # the tables of skorch's nets, by rows, type and device
        self.skorch_rows = {}
        # the first of the fits that begin alike, by rows and fixed settings
        self.first = {}
        # specs and group keys with another batch size, by the first fit and the batch size
        self.other_batches = {}
        # numbers that are kept as outputs for the test rows
        self.n_outputs = 0
        self.tracker = Tracker()

    def prepare(self, planned_fits, seed=None):
        """Return a :class:`Fit` for each planned fit of a task, whose estimator stays unfitted.

        Parameters
        ----------
        planned_fits : iterable of PlannedFit
        seed : int or None
            What nets of skorch draw from; they have no seed of their own.
        """
        draft = None
        fits = []
        for number, planned in enumerate(planned_fits):
            if self.device is not None:
                net = net_of(planned.estimator)
                net.set_params(device=_device_of(net, self.device))
            # a second fit of the estimator goes on where the first has ended
            draft = make_draft(planned.estimator if draft is None else draft)
            fits.append(self._prepare(planned, draft, seed and seed + number))
        return fits

    def _prepare(self, planned: PlannedFit, draft, seed):
        """Prepare one fit, by following another one or by running a draft of the estimator."""
        estimator = planned.estimator
        net = net_of(estimator)
        pipeline = None if net is estimator else estimator
        fit = Fit(net=net, pipeline=pipeline, key=planned.key)
        fold = planned.key
        if pipeline is not None:
            # the rows that the net gets depend on the steps
            settings = {**vars(draft), "steps": draft.steps[:-1], "memory": None}
            fold = (*fold, fingerprint(settings))
        start = (fold, find_fixed_settings(net))
        fit.reason = why_alone(net) or why_pipeline_alone(pipeline) or why_callbacks_alone(planned)
        if not fit.reason and start in self.first:
            self._follow(fit, self.first[start])
        else:
            self._lead(fit, planned, draft, fold, seed)
        self._keep(fit, start, planned)
        if fit.spec is not None:
            fit.telling = make_telling(planned)
        return fit

    def _follow(self, fit, first):
        """Prepare a fit that begins as the `first` one does."""
        try:
            check_follower(fit.net, first.net)
            spec, fit.group_key = self._follow_batch_size(fit.net, first)
            fit.spec = follow_spec(spec, fit.net, self.tables)
            if list_settings(fit.net):
                self._follow_callbacks(fit, first)
        except Exception:
            _logger.debug("a fit cannot be prepared", exc_info=True)
            fit.reason = _FAILS
            return
        if fit.reason:
            fit.spec = None
        fit.template = first.template
        fit.steps = first.steps
        fit.caught = first.caught
        fit.table = first.table
        fit.n_step_warnings = first.n_step_warnings

    def _follow_callbacks(self, fit, first):
        """Give a fit that begins as the `first` one does its own callbacks."""
        net = make_follower(first.template.net, fit.net)
        fit.reason = why_refused_initialized(net)
        if fit.reason:
            return
        fit.spec = replace(fit.spec, clips=find_clips(net), watcher=None)
        _take_callbacks(fit, net, first.valid)

    def _follow_batch_size(self, net, first):
        """Return the spec of the `first` fit with the batch size of `net`, and its group key."""
        if net.batch_size == first.net.batch_size:
            return first.spec, first.group_key
        key = (id(first), net.batch_size)
        if key not in self.other_batches:
            spec = follow_batch_size(first.spec, net, first.template.net, self.tables)
            self.other_batches[key] = (spec, group_key(spec, self.tables.by_name))
        return self.other_batches[key]

    def _lead(self, fit, planned, draft, fold, seed):
        """Prepare a fit by running it up to its training; note whether that draws numbers."""
        draws_nothing = _draws_nothing(fit)
        # the task may have drawn to split its rows since the fit before this one
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
        """Run the fit of a draft; if that fails, the fit will fail again when the task runs."""
        try:
            self._run_draft(fit, planned, draft, fold, seed)
        except Exception:
            _logger.debug("a fit cannot be prepared", exc_info=True)
            fit.reason = _FAILS
        if fit.pipeline is not None and len(fit.steps) < _count_steps(fit.pipeline):
            # a step has failed: the table is not what the net would get
            fit.table = None

    def _run_draft(self, fit, planned, draft, fold, seed):
        """Fit a draft, stop it where its training would begin, and read its net."""
        net = net_of(draft)
        X = planned.X
        if fit.pipeline is not None:
            X = lend(X)
            draft.memory = Recorder(fit, self.steps, fit.pipeline.memory, self.tracker)
        # gets the arguments of the training loop
        found = []
        if isinstance(net, NetworkEstimator):
            vars(net)["_hook"] = Collecting(found, self._converter(net, fit, fold, planned))
            stopped = nullcontext()
            read = self._read
        else:
            stopped = stopped_before_training(net, found, seed)
            read = self._read_skorch
        arguments = (X,) if planned.y is None else (X, planned.y)
        with recorded_warnings() as fit.caught, stopped, muted(net):
            draft.fit(*arguments, **planned.params)
        vars(net).pop("_hook", None)
        fit.reason, *datasets = found[0]
        if fit.reason:
            return
        # the rows are gathered only once, which takes less time than starting more threads
        with limited_threads(1):
            read(fit, net, fold, planned, *datasets)
        if fit.spec is not None:
            fit.template = Template.of(net, fit.net)
            fit.group_key = group_key(fit.spec, self.tables.by_name)

    def _converter(self, net, fit, fold, planned):
        """Return a function that converts the table of a net."""
        # the rows that a pipeline's net gets are not rows of the user's table
        source = planned if fit.pipeline is None else None
        return lambda X: self.tables.convert(net, _fold_of(fit, fold), source, X)

    def _read(self, fit, net, fold, planned, dataset):
        """Read the spec of an initialized net of sktune, or set the reason why there is none."""
        rows, _ = rows_of(dataset)
        fit.reason = why_alone_initialized(net, rows)
        if fit.reason:
            return
        fit.spec = read_spec(net, dataset, planned, self.tables)
        if list_settings(net):
            _, fit.valid = net.get_split_datasets(dataset, rows.y)
        _take_callbacks(fit, net, fit.valid)
        with recorded_warnings() as caught:
            notice_first_outputs(net, fit.spec, self.tables)
        fit.caught = [*fit.caught, *caught]

    def _read_skorch(self, fit, net, fold, planned, train, valid, generator_state):
        """Read the spec of an initialized net of skorch, or set the reason why there is none."""
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
            _take_callbacks(fit, net, valid)

    def _keep(self, fit, start, planned):
        """Keep what others can follow, and the test rows for which outputs are computed."""
        if fit.spec is None:
            return
        if not fit.draws:
            self.first.setdefault(start, fit)
        if not fit.spec.runs_user_code:
            # it will not have to be trained alone
            fit.table = None
        test = fit.spec.rows.test
        if test is None:
            return
        self.n_outputs += len(test) * fit.template.net.n_outputs_
        if self.n_outputs <= _MOST_OUTPUTS:
            fit.test_rows = (planned.whole, test.numpy())
        else:
            fit.spec = replace(fit.spec, keeps_outputs=False)


class Collecting(FitHook):
    """Stops the fit of a net where its training would begin.

    Parameters
    ----------
    found : list
        It gets a tuple: the reason why the arguments of the training loop keep the fit out of a
        group, or ``""``; and the dataset.
    convert : callable
        Converts the table.
    """

    forgets_given_table = True

    def __init__(self, found, convert):
        self.found = found
        self.convert = convert

    def convert_table(self, net, X):
        """Return the table as the module takes it, shared with other fits."""
        return self.convert(X)

    def replace_training(self, net, dataset, epochs, fit_params):
        """Keep the dataset, and why the arguments keep the fit out of a group; stop the fit."""
        self.found.append((why_told(epochs, **fit_params), dataset))
        return True


def _take_callbacks(fit, net, valid):
    """Let a fit have the callbacks of its initialized net, and what tells them of its epochs."""
    if list_settings(net):
        fit.callbacks = net.callbacks_
    if needs_watching(net):
        fit.spec = replace(fit.spec, watcher=make_watcher(net, fit.spec, valid))


def _device_of(net, device):
    """Return a device as a net takes it: nets of skorch do not know ``"auto"``."""
    return device if isinstance(net, NetworkEstimator) else str(resolve_device(device))


def _fold_of(fit, fold):
    """Return a key that is equal for fits whose nets get the same rows.

    Rows of steps that have drawn random numbers are not shared with another fit.
    """
    return (*fit.key, fit.identity) if fit.draws else fold


def _count_steps(pipeline):
    """Return how many steps a pipeline fits before its last one."""
    return sum(step not in (None, "passthrough") for _, step in pipeline.steps[:-1])


def _draws_nothing(fit):
    """Tell whether only code of sktune and torch prepares a fit, and its seed is given."""
    net = fit.net
    is_ours = type(net).__module__.startswith("sktune.")
    is_known = is_ours and net.module is MLP and net.criterion in _KNOWN_CRITERIA
    return is_known and fit.pipeline is None and isinstance(net.random_state, Integral)


def _draw_as(fit):
    """Draw the seed of a net that is not prepared, so that later fits draw the right ones."""
    is_ours = isinstance(fit.net, NetworkEstimator)
    if is_ours and fit.pipeline is None and fit.net.random_state is None:
        draw_seed(None)
