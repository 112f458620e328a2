"""The training of a group: fits of one architecture, epoch by epoch, until each is done."""

import math
from contextlib import suppress
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch

from sktune.engine.events import EpochEvent
from sktune.engine.lanes import Lane, validation_parts
from sktune.engine.specs import FitResult
from sktune.engine.steps import STEP_BACKENDS
from sktune.engine.steps.base import StepOptions
from sktune.engine.steps.loss import StackedLoss
from sktune.modules.structure import watch_settings
from sktune.runtime.gpu.precision import tf32_products
from sktune.runtime.gpu.transfers import fetch
from sktune.runtime.threads import flushed_denormals
from sktune.training.batches import Batches
from sktune.training.divergence import DivergenceError, find_infinite, is_representable
from sktune.training.rows import restore_row

# The losses that must be finite, by what an error calls them.
_LOSSES = {"training": "train_loss", "validation": "valid_loss"}


def train_group(
    specs,
    states=None,
    tables=None,
    until=None,
    *,
    backend=None,
    options=None,
    listeners=(),
    keeper=None,
):
    """Train fits together; a pure function of its first four arguments.

    Parameters
    ----------
    specs : list of FitSpec
        Fits that are alike: of one architecture, optimizer, loss and number of rows (but for less
        than a batch). See :func:`sktune.engine.planner.group_key`.
    states : list of TrainState, or None
        Where each training goes on, all at the same epoch; None is where they begin.
    tables : dict of Rows
        The tables that the specs name.
    until : int or None
        The epoch to stop at; None is the end of each fit.
    backend : StepBackend or None
        How steps are taken, as its ``blocker`` has left it; None is the first way that can.
    options : StepOptions or None
    listeners : list of objects with ``on_epoch``
        They hear of each epoch: see :class:`EpochEvent`.
    keeper : Keeper or None
        It gets the results of fits on their way, and when they are over: see
        :class:`sktune.engine.store.recording.Keeper`.

    Returns
    -------
    results : list of FitResult
        One for each of the specs, in their order.

    Raises
    ------
    ValueError
        If the states are at different epochs, or if no backend can train the fits.
    """
    turns = train_in_turns(
        specs,
        states,
        tables,
        until,
        backend=backend,
        options=options,
        listeners=listeners,
        keeper=keeper,
    )
    with flushed_denormals():
        while True:
            try:
                next(turns)
            except StopIteration as end:
                return end.value


def train_in_turns(
    specs,
    states=None,
    tables=None,
    until=None,
    *,
    backend=None,
    options=None,
    listeners=(),
    keeper=None,
):
    """Train fits together as :func:`train_group` does, which has the same arguments.

    This is a generator, whose value the results are. It pauses in each epoch before it waits for a
    device.
    """
    states = [None] * len(specs) if states is None else states
    options = StepOptions() if options is None else options
    results = [FitResult(state=state) for state in states]
    going_on = [n for n, state in enumerate(states) if _goes_on(specs[n], state)]
    if until is not None:
        going_on = [n for n in going_on if states[n] is None or states[n].epoch < until]
    if not going_on:
        return results
    if backend is None:
        backend, blockers = choose_backend([specs[n] for n in going_on], tables, options)
        if backend is None:
            raise ValueError(f"fits must be such as can be trained together, got: {blockers}")
    lanes = [Lane(specs[n], states[n], tables) for n in going_on]
    trained = yield from Group(lanes, backend, options, listeners, going_on, keeper).train(until)
    for n, result in zip(going_on, trained, strict=True):
        results[n] = result
    return results


def _goes_on(spec, state):
    """Tell whether there is something left to train of a fit."""
    return state is None or not (state.is_over or state.epoch >= spec.n_epochs)


def choose_backend(specs, tables, options):
    """Return the first backend that can train fits that are alike, and the blockers of the others.

    The backend is None if none can. The blockers are a dict of texts by the backends' names.
    """
    blockers = {}
    for make in STEP_BACKENDS:
        backend = make()
        blocker = backend.blocker(specs, tables, options)
        if not blocker:
            return backend, blockers
        blockers[backend.name] = blocker
    return None, blockers


class Group:
    """Lanes of one architecture, trained together.

    Parameters
    ----------
    lanes : list of Lane
    backend : StepBackend
        It takes the steps, and holds the weights of the lanes.
    options : StepOptions
    listeners : list of objects with ``on_epoch``
    fit_numbers : list of int, or None
        What the fits of the lanes are called in events; None is the lanes' positions.
    keeper : Keeper or None
    """

    def __init__(self, lanes, backend, options, listeners=(), fit_numbers=None, keeper=None):
        self.lanes = lanes
        self.backend = backend
        self.options = options
        self.listeners = listeners
        self.fit_numbers = list(range(len(lanes))) if fit_numbers is None else fit_numbers
        self.keeper = keeper
        self.first_epoch = lanes[0].state.epoch
        if any(lane.state.epoch != self.first_epoch for lane in lanes):
            epochs = sorted({lane.state.epoch for lane in lanes})
            raise ValueError(f"the states of a group must be at the same epoch, got {epochs}")
        # the lanes that are not done, in the order in which the backend holds them
        self.alive = list(range(len(lanes)))
        self.results = [FitResult() for _ in lanes]
        spec = lanes[0].spec
        self.narrow_to = spec.narrow_to
        self.is_regressor = spec.is_regressor
        self.loss = StackedLoss(spec.loss, lanes[0].rows.target.dtype)
        # outputs for the validation rows, in parts, of the lanes that ask for them by position
        self.valid_outputs = {}
        is_on_gpu = torch.device(spec.device).type == "cuda"
        self.allows_tf32 = self.options.allows_tf32 and is_on_gpu
        # whether the nets can be evaluated together: users' modules tell when it is tried
        self.can_evaluate = True
        # the positions of lanes, numbers of rows, and losses and accuracies, on the device
        self.validated = []
        # of each epoch: the lanes that were alive, and arrays of their losses and rates by name
        self.records = []

    def train(self, until=None):
        """Train all lanes until each is done, or up to an epoch; a generator of their results."""
        self.backend.prepare(self.lanes, self.options)
        epoch = self.first_epoch
        while self.alive:
            began = perf_counter()
            rates = [self.lanes[lane].begin_epoch(epoch) for lane in self.alive]
            with tf32_products(self.allows_tf32):
                read_losses = self.backend.begin_epoch(epoch, rates)
            self._launch_validation([self.lanes[lane] for lane in self.alive])
            yield
            finished = self._close_epoch(epoch, read_losses(), rates, began)
            if self.keeper is not None:
                self._keep(epoch, finished)
            if epoch + 1 == until:
                self._retire(range(len(self.alive)), finished, epoch)
            elif finished:
                self._retire(finished, finished, epoch)
            epoch += 1
        for lane, curve in self._curves_of(range(len(self.lanes))).items():
            self.results[lane].curve = curve
        return self.results

    def _close_epoch(self, epoch, losses, rates, began):
        """Record an epoch's losses and rates; return the positions of the lanes that are done."""
        lanes = [self.lanes[lane] for lane in self.alive]
        # A loss that is infinite or NaN is a divergence: NumPy need not warn of it.
        with np.errstate(over="ignore", invalid="ignore"):
            record = {"train_loss": self._mean_losses(losses, lanes)}
            record |= self._validate(lanes)
        record["lr"] = np.array([lane_rates[-1] for lane_rates in rates])
        seconds = perf_counter() - began
        record["dur"] = np.full(len(lanes), seconds / len(lanes))
        self.records.append((self.alive, record))
        finished = self._find_diverged(epoch, record)
        # the positions of lanes whose weights are the best so far
        improved = []
        for position, lane in enumerate(lanes):
            if position not in finished:
                is_due = self._update_stopping(lane, position, record, improved)
                is_due |= self._tell_watcher(lane, position, record, improved)
                if is_due or epoch + 1 == lane.spec.n_epochs:
                    finished.add(position)
        if improved:
            for position, weights in zip(improved, self.backend.weights(improved), strict=True):
                lanes[position].best_weights = weights
        finished |= self._tell(epoch, record, seconds, finished)
        return sorted(finished)

    def _mean_losses(self, losses, lanes):
        """Return the mean of each lane's losses (L, n_steps) over the rows."""
        if self.narrow_to is not None:
            # The fit computes in a wider type than its modules have outside of it: what is beyond
            # their type counts as infinite.
            is_beyond = np.abs(losses) > torch.finfo(self.narrow_to).max
            losses = np.where(is_beyond, math.inf, losses)
        sizes = np.zeros(losses.shape)
        for row, lane in zip(sizes, lanes, strict=True):
            row[: len(lane.batches.sizes)] = lane.batches.sizes
        # Values after the last step of a shorter lane are not losses of that lane.
        losses = np.where(sizes > 0, losses, 0.0)
        return (losses * sizes).sum(1) / sizes.sum(1)

    def _find_diverged(self, epoch, record):
        """Give the lanes whose losses are not finite an error; return their positions."""
        diverged = set()
        for label, name in _LOSSES.items():
            losses = record[name].tolist() if name in record else []
            for position, loss in enumerate(losses):
                if position not in diverged and not is_representable(loss, self.narrow_to):
                    diverged.add(position)
                    result = self.results[self.alive[position]]
                    what = f"{label} loss became {loss}"
                    result.error = self._make_error(position, epoch, what, record)
                    result.is_final = True
        return diverged

    def _make_error(self, position, epoch, what, record):
        rates = [record["lr"][position].item()]
        return DivergenceError.at(epoch + 1, rates, what, self.is_regressor)

    def _update_stopping(self, lane, position, record, improved):
        """Let early stopping take a lane's loss; return whether it is time to stop."""
        if lane.stopping is None:
            return False
        loss = record[lane.stopping.monitor][position].item()
        is_best, is_due = lane.stopping.update(loss)
        if is_best and lane.stopping.restores:
            improved.append(position)
        return is_due

    def _tell_watcher(self, lane, position, record, improved):
        """Let what looks at the epochs of a lane hear of one; return whether it ends the fit."""
        if lane.watcher is None:
            return False
        numbers = {name: values[position].item() for name, values in record.items()}
        numbers["train_batch_count"] = len(lane.batches.sizes)
        rows = lane.spec.rows
        if rows.n_valid_batches is not None:
            numbers["valid_batch_count"] = rows.n_valid_batches
            # exact: the accuracy may be of lower precision
            numbers["valid_acc"] = round(numbers["valid_acc"] * len(rows.valid)) / len(rows.valid)
        outputs = self.valid_outputs.get(position)
        outputs = None if outputs is None else torch.cat(outputs)
        is_best, is_due = lane.watcher.end_epoch(numbers, outputs)
        if is_best:
            improved.append(position)
        return is_due

    def _tell(self, epoch, record, seconds, finished):
        """Tell the listeners of an epoch; return the positions of the lanes that they stop."""
        if not self.listeners:
            return set()
        fits = [self.fit_numbers[lane] for lane in self.alive]
        names = ("train_loss", "lr", "valid_loss", "valid_acc")
        columns = {name: record.get(name) for name in names}
        done = {fits[position] for position in finished}
        event = EpochEvent(epoch + 1, fits, **columns, seconds=seconds, done=done)
        for listener in self.listeners:
            listener.on_epoch(event)
        for fit, reason in event.stopped.items():
            self.results[self.alive[fits.index(fit)]].stop_reason = reason
        return {fits.index(fit) for fit in event.stopped}

    def _retire(self, positions, finished, epoch):
        """Take lanes out of the group, so that those that are done take no more time.

        Lanes that are not among the `finished` can go on later, from their states.
        """
        results = {}
        for position in positions:
            result = self.results[self.alive[position]]
            results[position] = result
        self._take_states(results, epoch)
        self._compute_outputs(results)
        if self.keeper is not None:
            self._hand_to_keeper(results)
        for position in finished:
            result = results[position]
            if result.state is not None:
                result.state = result.state.end()
        kept = [p for p in range(len(self.alive)) if p not in results]
        self.alive = [self.alive[position] for position in kept]
        if kept:
            self.backend.select(kept)

    def _keep(self, epoch, finished):
        """Hand the results of lanes that go on to the keeper, if it wants them."""
        is_due = self.keeper.is_due()
        results = {}
        wanted = {}
        for position, lane in enumerate(self.alive):
            is_wanted = self.keeper.wants(self.fit_numbers[lane], epoch + 1)
            if position in finished or not (is_due or is_wanted):
                continue
            results[position] = FitResult()
            if is_wanted:
                wanted[position] = results[position]
        self._take_states(results, epoch)
        self._compute_outputs(wanted)
        self._hand_to_keeper(results)

    def _hand_to_keeper(self, results):
        """Hand copies of results to the keeper, by the positions of their lanes."""
        curves = self._curves_of([self.alive[position] for position in results])
        for position, result in results.items():
            lane = self.alive[position]
            self.keeper.keep(self.fit_numbers[lane], replace(result, curve=curves[lane]))
        self.keeper.flush()

    def _take_states(self, results, epoch):
        """Give results without an error, by position, the states of their lanes."""
        asked = [position for position, result in results.items() if result.error is None]
        if asked:
            for position, state in zip(asked, self.backend.states(asked), strict=True):
                self._take_state(position, results[position], state, epoch)

    def _take_state(self, position, result, state, epoch):
        """Give a result the state of a lane, or an error where the weights are not finite."""
        lane = self.lanes[self.alive[position]]
        weights, optimizer = state
        result.state = lane.state_after(epoch + 1, weights, optimizer)
        result.is_final = result.state.is_stopped
        weights = self.lanes[0].spec.narrow(result.state.fitted_weights)
        name = find_infinite(weights.items())
        if name is not None:
            _, record = self.records[-1]
            result.error = self._make_error(position, epoch, f"{name} is no longer finite", record)
            result.state = None
            result.is_final = False

    def _compute_outputs(self, results):
        """Compute the outputs for the test rows of lanes, whose results are given by position.

        No more rows are computed at once than in a training step.
        """
        rows_asked = {}
        for position, result in results.items():
            spec = self.lanes[self.alive[position]].spec
            asks = spec.keeps_outputs and spec.rows.test is not None
            if asks and result.error is None:
                rows_asked.setdefault(spec.rows, []).append(position)
        # results, and the outputs for each batch on the device, with the numbers of its rows
        found = []
        for asked in rows_asked.values():
            lane = self.lanes[self.alive[asked[0]]]
            rows = lane.spec.rows
            batches = Batches(lane.rows, rows.test, rows.test_batch_size)
            most = len(self.lanes) * max(self.lanes[0].batches.sizes)
            n = max(1, most // max(batches.sizes))
            for start in range(0, len(asked), n):
                if not self.can_evaluate:
                    break
                # what fails here is raised once more where a net alone is asked
                self.can_evaluate = False
                with suppress(Exception):
                    part = {p: results[p] for p in asked[start : start + n]}
                    found.append(self._evaluate(part, batches))
                    self.can_evaluate = True
        _fetch_outputs(found)

    @torch.no_grad()
    def _evaluate(self, results, batches):
        net = self.backend.net.select(self.backend.held(results))
        if self.narrow_to is not None:
            net = net.to(self.narrow_to)
        results = list(results.values())
        spec = self.lanes[0].spec
        net.load_all([spec.narrow(result.state.fitted_weights) for result in results])
        are_unchanged = self._watch(net)
        found = []
        for X, *_ in batches:
            X = X if self.narrow_to is None else X.to(self.narrow_to)
            outputs = net.forward(X.expand(len(results), *X.shape), False)
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            found.append((first, len(X)))
        if not are_unchanged():
            raise RuntimeError("its module remembers its evaluation")
        return results, found

    def _watch(self, net):
        """Return a function that tells whether a module of the user's has changed nothing."""
        if not self.lanes[0].spec.runs_user_code:
            return lambda: True
        are_unchanged = watch_settings(net.template)
        before = {name: buffer.clone() for name, buffer in net.buffers.items()}

        def is_as_before():
            now = net.buffers
            return are_unchanged() and all(torch.equal(now[name], b) for name, b in before.items())

        return is_as_before

    @torch.no_grad()
    def _launch_validation(self, lanes):
        """Compute what :meth:`_validate` reads; nothing if there are no validation rows."""
        self.validated = []
        self.valid_outputs = {
            position: []
            for position, lane in enumerate(lanes)
            if lane.watcher is not None and lane.watcher.needs_outputs
        }
        if lanes[0].spec.rows.valid is None:
            return
        # what is recorded returns no outputs, and takes batches of its own
        if not self.valid_outputs and self.loss.is_plain_mean:
            sums = self.backend.launch_validation()
            if sums is not None:
                self.validated.append((list(range(len(lanes))), 1, sums))
                return
        for part in validation_parts(lanes, self.loss.is_plain_mean):
            self.validated.append(self._evaluate_part(part))

    def _evaluate_part(self, part):
        """Return the positions of a part, its number of rows, and what the nets come to on it."""
        net = self.backend.net
        held = self.backend.held(part.positions)
        if len(held) < len(net):
            net = net.select(held)
        outputs = net.forward(part.X, False)
        losses = self.loss.of_lanes(outputs, part.target, part.weight)
        accuracies = self.loss.accuracies(outputs, part.target).to(losses.dtype)
        for position, output in zip(part.positions, outputs, strict=True):
            if position in self.valid_outputs:
                # the memory of outputs is used again for the next part
                self.valid_outputs[position].append(output.clone())
        return part.positions, part.X.shape[1], torch.stack([losses, accuracies])

    def _validate(self, lanes):
        """Return each lane's validation loss and accuracy by name; nothing if there are no rows."""
        if lanes[0].spec.rows.valid is None:
            return {}
        found = np.zeros((2, len(lanes)))
        parts = self.validated
        for (positions, n_rows, _), both in zip(parts, fetch([p[2] for p in parts]), strict=True):
            found[:, positions] += both.double().numpy() * n_rows
        found /= [len(lane.spec.rows.valid) for lane in lanes]
        return {"valid_loss": found[0], "valid_acc": found[1]}

    def _curves_of(self, chosen):
        """Return the curves of some lanes so far: a list for each of the columns."""
        curves = {lane: {"epoch": []} for lane in chosen}
        for epoch, (alive, record) in enumerate(self.records, start=self.first_epoch + 1):
            columns = {name: values.tolist() for name, values in record.items()}
            for position, lane in enumerate(alive):
                if lane not in curves:
                    continue
                curve = curves[lane]
                curve["epoch"].append(epoch)
                for name, values in columns.items():
                    curve.setdefault(name, []).append(values[position])
        for lane, curve in curves.items():
            n_epochs = len(curve["epoch"])
            curve["train_batch_count"] = [len(self.lanes[lane].batches.sizes)] * n_epochs
            n_valid_batches = self.lanes[lane].spec.rows.n_valid_batches
            if n_valid_batches is not None:
                curve["valid_batch_count"] = [n_valid_batches] * n_epochs
        return curves


def _fetch_outputs(found):
    """Give results the outputs that were computed for them, in one copy from a device."""
    fetched = iter(fetch([outputs for _, batches in found for outputs, _ in batches]))
    for results, batches in found:
        parts = [(next(fetched), n_rows) for _, n_rows in batches]
        for position, result in enumerate(results):
            result.outputs = [restore_row(part[position], n_rows).clone() for part, n_rows in parts]
