"""The epoch loop over lanes."""

import math
from contextlib import suppress
from copy import deepcopy
from time import perf_counter

import numpy as np
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sktune.engine.compiled.program import find_program, read_data, read_order
from sktune.engine.lanes import Outcome, Part, training_steps, validation_parts
from sktune.engine.steps.network import StackedNet
from sktune.engine.steps.optimizers import StackedOptimizer
from sktune.engine.steps.recorded import FEWEST_STEPS, CapturedSteps, can_capture
from sktune.modules.dropout import dropout_layers
from sktune.modules.reading import has_other_forward
from sktune.runtime.dtypes import narrow, wide_dtype
from sktune.runtime.threads import flushed_denormals
from sktune.training.divergence import DivergenceError, is_representable
from sktune.training.rows import restore_row

_KINDS = {"training": "train_loss", "validation": "valid_loss"}
_TRIAL_ROWS = 8


class Stopped(BaseException):
    """Training was told to stop."""


class Unfusable(ValueError):
    """Nets cannot be trained together for what their module or their criterion does; the message says what it is."""


class Group:
    """Lanes of one architecture, trained together until each has done its epochs.

    `on_epoch` is called after each epoch with the number of lanes alive and their least training loss; the event
    `stop` ends the training at the next step. `low` is the type of products in training, if not the modules' own.
    """

    def __init__(self, lanes, on_epoch=None, stop=None, low=None):
        self.lanes = lanes = [lane.fresh() for lane in lanes]
        self.on_epoch = on_epoch
        self.stop = stop
        self.alive = list(range(len(lanes)))
        self.outcomes = [Outcome() for _ in lanes]
        self.net = StackedNet([lane.module for lane in lanes], lanes[0].masks(lanes), low)
        self.optimizer = StackedOptimizer(
            lanes[0].optimizer, [lane.options for lane in lanes], self.net.flat
        )
        self.loss = Loss(lanes[0])
        self.is_regressor = isinstance(lanes[0].net, NeuralNetRegressor)
        self.best = {}
        penalties = torch.tensor(
            [lane.penalties for lane in lanes], dtype=torch.float64
        )  # (L, 2): l1 and l2
        self.column_dtype = wide_dtype(self.net.flat.dtype)  # of what is a number per lane
        self.penalties = (
            penalties.to(self.net.flat.device, self.column_dtype) if penalties.any() else None
        )
        self.program = find_common_program(lanes) if low is None else None
        tables = {lane.batches.rows for lane in lanes} if self.program else ()
        self.data = {rows: read_data(rows) for rows in tables}
        self._begin_steps(0)

    def train(self):
        """Train all lanes; return their outcomes."""
        epoch = 0
        with flushed_denormals():
            while self.alive:
                began = perf_counter()
                losses, rates = self._run_epoch(epoch)
                losses = self._bound(losses)
                finished = self._close_epoch(epoch, losses, rates, perf_counter() - began)
                if finished:
                    self._retire(finished, epoch)
                epoch += 1
        return self.outcomes

    def try_step(self):
        """Compute one small step; raise if its gradients and the buffers then are not those of each net alone."""
        part, *_ = next(training_steps(self.lanes, 0))
        X, target = part.X[:, :_TRIAL_ROWS].clone(), part.target[:, :_TRIAL_ROWS]
        net = self.net.select(torch.tensor(part.positions, device=self.net.flat.device))
        outputs = net.forward(X.clone(), True)  # a module may write into its input
        self.loss.check(outputs.detach(), target)
        found = net.gradient(outputs, self.loss(outputs.detach(), target)[1])
        for place, lane in enumerate(part.positions):
            expected, module = _plain_gradient(self.lanes[lane], X[place], target[place])
            pairs = [(found[place], expected)] + [
                (net.buffers[name][place], b) for name, b in module.named_buffers()
            ]
            if not all(_agree(*pair) for pair in pairs):
                raise Unfusable("its gradients or buffers are not those of each net alone")
        if self.lanes[0].valid is not None:
            net.forward(X, False)

    def fails_alone(self):
        """Tell whether a step of one of the nets alone raises, too."""
        part, *_ = next(training_steps(self.lanes, 0))
        X, target = part.X[:, :_TRIAL_ROWS], part.target[:, :_TRIAL_ROWS]
        try:
            for place, position in enumerate(part.positions):
                lane = self.lanes[position]
                outputs = deepcopy(lane.module).train()(X[place].clone())
                deepcopy(lane.criterion)(*lane.match(outputs, target[place])).backward()
        except Exception:
            return True
        return False

    def can_evaluate(self):
        """Tell whether the nets can be evaluated as one, which changes none of their buffers."""
        part, *_ = next(training_steps(self.lanes, 0))
        net = self.net.select(torch.tensor(part.positions, device=self.net.flat.device))
        before = {name: buffer.clone() for name, buffer in net.buffers.items()}
        try:
            net.forward(part.X[:, :_TRIAL_ROWS].clone(), False)
        except Exception:
            return False
        return all(torch.equal(net.buffers[name], buffer) for name, buffer in before.items())

    def _run_epoch(self, epoch):
        """Run the steps of an epoch; return losses (alive, steps) and a list of each lane's learning rates."""
        device, lanes = self.net.flat.device, [self.lanes[lane] for lane in self.alive]
        rates = [lane.rates(epoch) for lane in lanes]
        longest = max(map(len, rates))
        padded = [own + own[-1:] * (longest - len(own)) for own in rates]
        if self.program is not None:
            return self._run_compiled(epoch, lanes, np.array(padded)), rates
        of_step = torch.tensor(padded, dtype=torch.float64)
        of_step = (
            of_step.T.unsqueeze(2).to(device, self.column_dtype).unbind()
        )  # of each step: (L, 1)
        losses = torch.zeros(longest, len(lanes), dtype=self.column_dtype, device=device)
        of_losses = losses.unbind()
        for batch, parts in enumerate(training_steps(lanes, epoch)):
            if self.stop is not None and self.stop.is_set():
                raise Stopped
            for part in parts:
                place, rate, loss = (epoch, batch), of_step[batch], of_losses[batch]
                if len(part.positions) == len(lanes):
                    loss.copy_(self._full_step(part, place, rate))
                else:  # the last batch, of which some folds have a row more than others
                    chosen = torch.tensor(part.positions, device=device)
                    net, optimizer = self.net.select(chosen), self.optimizer.select(chosen)
                    loss[chosen] = self._step(net, optimizer, chosen, part, place, rate[chosen])
                    self.net.put_back(chosen, net)
                    self.optimizer.put_back(chosen, optimizer)
        return losses.T.cpu().double().numpy(), rates

    def _bind(self):
        """Return functions that train each lane for an epoch by compiled steps."""
        bound = []
        for position, lane in enumerate(map(self.lanes.__getitem__, self.alive)):
            state = {
                name: self.optimizer.state[name][position].numpy() for name in self.program.state
            }
            flat, gradient = (
                of_lanes[position].numpy() for of_lanes in (self.net.flat, self.net.flat_gradient)
            )
            numbers = lane.seed, lane.dropout, lane.options, lane.penalties
            table = self.data[lane.batches.rows], lane.batches.sizes
            bound.append(self.program.bind(flat, gradient, state, *table, *numbers))
        return bound

    def _run_compiled(self, epoch, lanes, rates):
        """Run the steps of an epoch lane by lane; return losses (alive, steps)."""
        losses, orders, t = np.zeros(rates.shape), {}, self.optimizer.t.numpy()
        for position, lane in enumerate(lanes):
            if self.stop is not None and self.stop.is_set():
                raise Stopped
            if lane.stream not in orders:
                orders[lane.stream] = read_order(lane.batches, epoch)
            found = self.bound[position](
                int(t[position, 0]), orders[lane.stream], rates[position], epoch
            )
            t[position] += len(found)
            losses[position, : len(found)] = found
            losses[position, len(found) :] = found[-1]  # no number, or of no weight
        return losses

    def _begin_steps(self, epoch):
        """Make steps ready from an epoch on: compiled ones, or recorded ones where enough of them are to come."""
        self.bound = self._bind() if self.program else None
        lanes = [self.lanes[lane] for lane in self.alive]
        n_steps = min((lane.n_epochs - epoch) * len(lane.batches.sizes) for lane in lanes)
        usable = self.net.chain and can_capture(lanes[0]) and n_steps >= FEWEST_STEPS
        self.captured = CapturedSteps(self.net.chain) if usable else None

    def _full_step(self, part, place, rates):
        """Take a step in all lanes; return their losses."""

        def step(tensors, place):
            *batch, rates = tensors
            return self._step(
                self.net, self.optimizer, slice(None), Part(None, *batch), place, rates
            )

        tensors = (part.X, part.target, part.weight, rates)
        if self.captured is None or part.X.ndim != 3:
            return step(tensors, place)
        return self.captured.take(step, self.optimizer.choose_rule(self.net.flat), tensors, place)

    def _step(self, net, optimizer, lanes, part, place, rates):
        """Take a step in `net`'s lanes; return their losses."""
        outputs = net.forward(part.X, True, place)
        loss, gradient = self.loss(outputs.detach(), part.target, part.weight)  # (L,), (L, B, ...)
        gradient = net.gradient(outputs, gradient)  # (L, P)
        if self.penalties is not None:
            loss = loss + _penalize(net, gradient, self.penalties[lanes])
        optimizer.step(net.flat, gradient, rates)
        return loss

    def _bound(self, losses):
        """Return losses, those beyond the type that the modules have outside of the fit as infinite."""
        dtype = self.lanes[0].narrow_to
        if dtype is not None:
            losses = np.where(np.abs(losses) > torch.finfo(dtype).max, math.inf, losses)
        return losses

    def _close_epoch(self, epoch, losses, rates, seconds):
        """Record an epoch's losses; return the positions of the lanes that are done."""
        # A loss that is infinite or no number is a divergence, which is told below: NumPy need not warn of it.
        with np.errstate(over="ignore", invalid="ignore"):
            means = self._mean_losses(losses)
            valid = self._validate()
        finished = []
        for position, lane in enumerate(self.alive):
            outcome = self.outcomes[lane]
            outcome.lr = rates[position][-1]
            row = {"epoch": epoch + 1, "train_loss": means[position], "lr": outcome.lr}
            row |= {name: of_lanes[position] for name, of_lanes in valid.items()}
            row |= {"dur": seconds / len(self.alive), "train_batch_count": len(rates[position])}
            if self.lanes[lane].n_valid_batches is not None:
                row["valid_batch_count"] = self.lanes[lane].n_valid_batches
            outcome.curve.append(row)
            dtype = self.lanes[lane].narrow_to
            bad = [kind for kind in _KINDS if not is_representable(row.get(_KINDS[kind], 0), dtype)]
            if bad:
                what = f"{bad[0]} loss became {row[_KINDS[bad[0]]]}"
                outcome.error = DivergenceError.at(epoch + 1, [outcome.lr], what, self.is_regressor)
                finished.append(position)
            elif self._is_over(position, lane, row) or epoch + 1 == self.lanes[lane].n_epochs:
                finished.append(position)
        if self.on_epoch:
            self.on_epoch(len(self.alive), np.fmin.reduce(means))
        return finished

    def _mean_losses(self, losses):
        """Return the mean of each lane's losses (alive, steps) over the rows."""
        sizes = np.zeros(losses.shape)
        for row, lane in zip(sizes, self.alive, strict=True):
            own = self.lanes[lane].batches.sizes
            row[: len(own)] = own
        # What stands behind a shorter lane's last step is no loss of its own.
        losses = np.where(sizes > 0, losses, 0.0)
        return ((losses * sizes).sum(1) / sizes.sum(1)).tolist()

    def _is_over(self, position, lane, row):
        stopping = self.lanes[lane].stopping
        if stopping is None:
            return False
        is_best, is_due = stopping.update(row[stopping.monitor])
        if is_best and stopping.restores:
            self.best[lane] = self.net.state(position)
        return is_due

    def _retire(self, positions, epoch):
        """Take finished lanes out, and go on with the others alone: a lane that is gone costs nothing."""
        for position in positions:
            lane = self.alive[position]
            outcome = self.outcomes[lane]
            if outcome.error is None:
                outcome.state = self.best.pop(lane, None) or self.net.state(position)
                outcome.optimizer = self.optimizer.lane_state(position)
                if (dtype := self.lanes[lane].narrow_to) is not None:
                    outcome.state = narrow(outcome.state, dtype)
                    outcome.optimizer = narrow(outcome.optimizer, dtype)
                _check_finite(outcome, self.is_regressor)
        self._keep_outputs(positions)
        kept = [p for p in range(len(self.alive)) if p not in set(positions)]
        self.alive = [self.alive[p] for p in kept]
        if kept:
            kept = torch.tensor(kept, device=self.net.flat.device)
            self.net, self.optimizer = self.net.select(kept), self.optimizer.select(kept)
            self.penalties = None if self.penalties is None else self.penalties[kept]
            self._begin_steps(epoch + 1)

    def _keep_outputs(self, positions):
        """Compute the outputs for the test rows of lanes that are done, of no more rows at once than in a step."""
        whole = [
            position for position in positions if self.outcomes[self.alive[position]].error is None
        ]
        for batches in dict.fromkeys(lane.test for lane in self.lanes if lane.test is not None):
            asked = [
                position for position in whole if self.lanes[self.alive[position]].test is batches
            ]
            n = max(1, len(self.lanes) * max(self.lanes[0].batches.sizes) // max(batches.sizes))
            for start in range(0, len(asked), n):
                with suppress(Exception):  # it will be raised once more where a net alone is asked
                    self._evaluate(asked[start : start + n], batches)

    @torch.no_grad()
    def _evaluate(self, positions, batches):
        net = self.net.select(torch.tensor(positions, device=self.net.flat.device))
        if (dtype := self.lanes[0].narrow_to) is not None:
            net = net.to(dtype)
        outcomes, found = [self.outcomes[self.alive[position]] for position in positions], []
        for place, outcome in enumerate(outcomes):
            net.load(place, outcome.state)
        for X, *_ in batches:
            X = X if dtype is None else X.to(dtype)
            outputs = net.forward(X.expand(len(positions), *X.shape), False)
            found.append(((outputs[0] if isinstance(outputs, tuple) else outputs).cpu(), len(X)))
        for place, outcome in enumerate(outcomes):
            outcome.outputs = [
                restore_row(outputs[place], n_rows).clone() for outputs, n_rows in found
            ]

    def _validate(self):
        """Return each lane's validation loss and accuracy, in lists by name; none where there are no such rows."""
        lanes = [self.lanes[lane] for lane in self.alive]
        if lanes[0].valid is None:
            return {}
        valid = np.zeros((2, len(lanes)))
        for part in validation_parts(lanes):
            chosen = torch.tensor(part.positions, device=self.net.flat.device)
            net = self.net if len(chosen) == len(lanes) else self.net.select(chosen)
            with torch.no_grad():
                outputs = net.forward(part.X, False)
                losses = self.loss.of_lanes(outputs, part.target, part.weight)
            found = [
                losses.cpu().double(),
                self.loss.accuracies(outputs, part.target).cpu().double(),
            ]
            valid[:, part.positions] += torch.stack(found).numpy() * part.X.shape[1]
        valid = (valid / [len(lane.valid) for lane in lanes]).tolist()
        return dict(zip(("valid_loss", "valid_acc"), valid, strict=True))


def find_common_program(lanes):
    """Return what trains each of some lanes, which are alike, by compiled steps; or None."""
    if any(any(lane.dropout) and not lane.masks_follow_from_seeds for lane in lanes):
        return None
    of_tables = {lane.batches.rows: lane for lane in lanes}.values()
    nets = [
        (lane.module, lane.criterion, lane.optimizer, lane.options, lane.batches)
        for lane in of_tables
    ]
    programs = [find_program(*net) for net in nets]
    return programs[0] if all(programs) else None


class Loss:
    """The losses of lanes, of the criterion that `lane` has in common with those beside it."""

    def __init__(self, lane):
        self.alone, self.match = lane.criterion, lane.match
        self.criterion = deepcopy(lane.criterion)
        self.criterion.reduction = "none"
        # cross entropy also takes a probability of each class in place of the class's number
        takes_shares = lane.batches.rows.target.is_floating_point()
        is_usual = type(self.criterion) is nn.CrossEntropyLoss and not has_other_forward(
            self.criterion
        )
        self.of_classes = is_usual and not takes_shares

    def __call__(self, outputs, target, weight=None):
        """Return losses (L,) and their gradient with respect to the outputs (L, B, ...)."""
        if self.of_classes and not self.criterion.label_smoothing and outputs.ndim == 3:
            return _cross_entropy(outputs, target, weight)
        outputs = outputs.requires_grad_()
        losses = self.of_lanes(outputs, target, weight)
        return losses.detach(), torch.autograd.grad(losses.sum(), outputs)[0]

    def of_lanes(self, outputs, target, weight=None):
        """Return the losses (L,) of outputs (L, B, ...) for targets (L, B, ...)."""
        if self.of_classes and outputs.ndim == 3:
            losses = self.criterion(outputs.mT, target)  # (L, B); classes in the middle: 3 x faster
        else:
            losses = self.criterion(*self.match(outputs.flatten(0, 1), target.flatten(0, 1)))
            losses = losses.view(*outputs.shape[:2], -1).mean(2)
        return (losses if weight is None else losses * weight).mean(1)

    def accuracies(self, outputs, target):
        """Return the shares (L,) of labels that outputs (L, B, C, ...) tell rightly.

        Of a table of labels it is the share of rows whose labels are all right. Where there are no classes the
        numbers mean nothing.
        """
        if outputs.ndim > 2 and outputs.shape[2] > 1 and target.ndim == outputs.ndim - 1:
            hits = (outputs.argmax(2) == target).flatten(1)
        elif outputs.numel() != target.numel():
            return outputs.new_zeros(len(outputs))
        else:
            least = 0.0 if isinstance(self.criterion, nn.BCEWithLogitsLoss) else 0.5
            n_rows = target.shape[1]
            hits = (outputs.flatten(1) > least) == (target.flatten(1) > least)
            hits = hits.view(len(hits), n_rows, -1).all(2)
        return hits.to(outputs.dtype).mean(1)

    def check(self, outputs, target):
        """Raise if a row's loss depends on the rows beside it."""
        alone = [self.match(*first) for first in zip(outputs[:, :1], target[:, :1], strict=True)]
        alone = torch.stack([self.alone(*first) for first in alone])
        only_first = torch.zeros(target.shape[:2]).to(outputs)
        only_first[:, 0] = target.shape[1]
        found, rtol = self.of_lanes(outputs, target, only_first), _tolerance(outputs.dtype, 1e-3)
        if not torch.allclose(found.to(alone.dtype), alone, rtol=rtol, equal_nan=True):
            raise Unfusable("its criterion is no mean of the rows' own losses")


def _cross_entropy(outputs, target, weight):
    """Do what autograd would, in a third of the time: the gradient is the probabilities less 1 at the class."""
    logs, picked = torch.log_softmax(outputs.mT, 1), target.unsqueeze(1)  # (L, C, B), (L, 1, B)
    found = logs.gather(1, picked).squeeze(1)  # (L, B)
    gradient = logs.exp_().scatter_add_(
        1, picked, logs.new_full((1, 1, 1), -1.0).expand(picked.shape)
    )
    gradient.div_(target.shape[1])
    if weight is not None:
        found, gradient = found * weight, gradient.mul_(weight.unsqueeze(1))
    return found.sum(1).div_(-target.shape[1]), gradient.mT


def _penalize(net, gradient, strengths):
    """Add the gradient of the lanes' penalties; return the penalties (L,)."""
    weights = (net.flat * net.weight_mask).to(strengths.dtype)
    l1, l2 = strengths[:, :1], strengths[:, 1:]
    gradient.add_(l1 * weights.sign() + 2 * l2 * weights)
    sizes = torch.stack(
        [weights.abs().sum(1), weights.square().sum(1)], dim=1
    )  # (L, 2), and maybe infinite
    return (strengths * sizes).where(strengths > 0, 0.0).sum(1)


def _tolerance(dtype, usual):
    """Return the relative error allowed to two ways to compute the same: the usual, more in half precision."""
    is_half = dtype.is_floating_point and dtype.itemsize < 4
    return 8 * torch.finfo(dtype).eps if is_half else usual


def _agree(found, expected):
    rtol = _tolerance(expected.dtype, 0.01)
    allowed = rtol * float(expected.abs().max()) + 1e-6 if expected.numel() else 0.0
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True)


def _plain_gradient(lane, X, target):
    """Return the gradient of a lane's module in a step of its own, and the module after it."""
    module = deepcopy(lane.module).train()
    for layer, p in zip(dropout_layers(module), lane.dropout, strict=True):
        layer.p = p
    loss = lane.criterion(*lane.match(module(X), target))
    learned = [
        p for p in module.parameters() if p.requires_grad
    ]  # all of them: what has no gradient never moves
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, learned)]), module


def _check_finite(outcome, is_regressor):
    for name, tensor in outcome.state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            what = f"{name} is no longer finite"
            outcome.error = DivergenceError.at(len(outcome.curve), [outcome.lr], what, is_regressor)
