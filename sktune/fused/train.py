"""The epoch loop over lanes."""

import math
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import zip_longest
from time import perf_counter

import numpy as np
import torch
from torch import nn

from sktune.data import EVALUATION_ROWS, batch_sizes, rows_of
from sktune.fused.network import StackedNet
from sktune.fused.optim import StackedOptimizer
from sktune.randomness import permutation
from sktune.training import BestEpoch, DivergenceError


class Stopped(BaseException):
    """Training was told to stop."""


@dataclass
class Lane:
    """A fit that is trained together with others."""

    net: object  # initialized, not trained
    train: object  # rows, or a subset of rows
    valid: object = None  # likewise, or None
    weight: object = None  # of the rows that `train` is taken from, (n_rows,), or None


@dataclass
class Outcome:
    """What a lane's training left behind."""

    state: dict | None = None
    optimizer: dict | None = None
    lr: float | None = None
    curve: list = field(default_factory=list)
    error: Exception | None = None


class Group:
    """Lanes of one architecture, trained together until each has done its epochs.

    `on_epoch` is called after each epoch with the number of lanes alive and their least training loss; the event
    `stop` ends the training at the next step.
    """

    def __init__(self, lanes, on_epoch=None, stop=None):
        self.lanes = lanes
        self.on_epoch = on_epoch
        self.stop = stop
        self.alive = list(range(len(lanes)))
        self.outcomes = [Outcome() for _ in lanes]
        self.net = StackedNet([lane.net.module_ for lane in lanes])
        self.optimizer = StackedOptimizer([lane.net.optimizer_ for lane in lanes], self.net.flat)
        self.head = lanes[0].net  # all lanes share its batch size and its criterion, of which we need a row's losses
        self.criterion = deepcopy(self.head.criterion_)
        self.criterion.reduction = "none"
        self.streams = _Streams(lanes)
        self.stopping = [BestEpoch(lane.net) if lane.net.early_stopping else None for lane in lanes]
        self.best = {}
        penalties = np.array([[lane.net.l1, lane.net.l2] for lane in lanes], dtype=float)
        self.penalties = torch.tensor(penalties).to(self.net.flat) if penalties.any() else None  # (L, 2)

    def train(self):
        """Train all lanes; return their outcomes."""
        epoch = 0
        while self.alive:
            began = perf_counter()
            losses = self._run_epoch(epoch)
            finished = self._close_epoch(epoch, losses, perf_counter() - began)
            if finished:
                self._retire(finished)
            epoch += 1
        return self.outcomes

    def try_step(self):
        """Compute the gradients of one small step; raise if they are not those of each net alone."""
        (lanes, X, target, _), *_ = next(self.streams.batches(0, self.alive))
        X, target = X[:, :_TRIAL_ROWS], target[:, :_TRIAL_ROWS]
        net = self.net.select(torch.tensor(lanes, device=self.net.flat.device))
        outputs = net.forward(X.clone(), True)  # a module may write into its input
        self._check_criterion(outputs.detach(), target)
        gradient = net.gradient(self._row_losses(outputs, target, None).sum())
        for lane, rows, labels, found in zip(lanes, X, target, gradient, strict=True):
            expected = self._plain_gradient(self.lanes[lane].net, rows, labels)
            allowed = 0.01 * float(expected.abs().max()) + 1e-6
            if not torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True):
                raise ValueError("its gradients are not those of each net alone")
        if self.lanes[0].valid is not None:
            net.forward(X, False)

    def _plain_gradient(self, net, X, target):
        module = deepcopy(net.module_).train()
        loss = net.criterion_(*net._match(module(X), target))
        learned = [p for p in module.parameters() if p.requires_grad]  # all of them: what has no gradient never moves
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, learned)])

    def _check_criterion(self, outputs, target):
        """Raise if a row's loss depends on the rows beside it."""
        alone = [self.head._match(*first) for first in zip(outputs[:, :1], target[:, :1], strict=True)]
        alone = torch.stack([self.head.criterion_(*first) for first in alone])
        only_first = torch.zeros(target.shape[:2]).to(outputs)
        only_first[:, 0] = target.shape[1]
        if not torch.allclose(self._row_losses(outputs, target, only_first), alone, rtol=1e-3, equal_nan=True):
            raise ValueError("its criterion is no mean of the rows' own losses")

    def _run_epoch(self, epoch):
        """Run the steps of an epoch; return the lanes' losses, (alive, steps), NaN where a lane had no rows."""
        device = self.net.flat.device
        n_batches = [len(sizes) for sizes in self.streams.batch_sizes(self.alive)]
        factors = self._lr_factors(epoch, n_batches).to(self.net.flat)  # (L, steps)
        losses = []
        for step, batch in enumerate(self.streams.batches(epoch, self.alive)):
            if self.stop is not None and self.stop.is_set():
                raise Stopped
            row = torch.zeros(len(self.alive), dtype=self.net.flat.dtype, device=device)
            for lanes, X, target, weight in batch:
                if len(lanes) == len(self.alive):
                    row = self._step(self.net, self.optimizer, slice(None), X, target, weight, (epoch, step), factors)
                else:  # the last batch, of which some folds have a row more than others
                    lanes = torch.tensor(lanes, device=device)
                    net, optimizer = self.net.select(lanes), self.optimizer.select(lanes)
                    row[lanes] = self._step(net, optimizer, lanes, X, target, weight, (epoch, step), factors)
                    self.net.put_back(lanes, net)
                    self.optimizer.put_back(lanes, optimizer)
            losses.append(row)
        return torch.stack(losses, 1)

    def _step(self, net, optimizer, lanes, X, target, weight, place, factors):
        """Take a step in `net`'s lanes; return their losses, detached."""
        outputs = net.forward(X, True, place)
        loss = self._row_losses(outputs, target, weight)  # (L,)
        gradient = net.gradient(loss.sum())
        loss = loss.detach()
        if self.penalties is not None:
            loss = loss + self._penalize(net, gradient, self.penalties[lanes])
        optimizer.step(net.flat, gradient, factors[lanes, place[1], None])
        return loss

    def _row_losses(self, outputs, target, weight):
        """Return the lanes' losses (L,) for outputs (L, B, ...) and targets (L, B, ...)."""
        if type(self.criterion) is nn.CrossEntropyLoss and outputs.ndim == 3:
            losses = self.criterion(outputs.transpose(1, 2), target)  # (L, B); classes in the middle: 3 x faster
        else:
            losses = self.criterion(*self.head._match(outputs.flatten(0, 1), target.flatten(0, 1)))
            losses = losses.view(*outputs.shape[:2], -1).mean(2)
        return (losses if weight is None else losses * weight).mean(1)

    def _penalize(self, net, gradient, strengths):
        """Add the gradient of the lanes' penalties; return the penalties (L,)."""
        weights = net.flat * net.weight_mask
        l1, l2 = strengths[:, :1], strengths[:, 1:]
        gradient.add_(l1 * weights.sign() + 2 * l2 * weights)
        sizes = torch.stack([weights.abs().sum(1), weights.square().sum(1)], dim=1)  # (L, 2), and maybe infinite
        return (strengths * sizes).where(strengths > 0, 0.0).sum(1)

    def _lr_factors(self, epoch, n_batches):
        rows, longest = [], max(n_batches)
        for lane, n in zip(self.alive, n_batches, strict=True):
            factors = self.lanes[lane].net._lr_factors(epoch, n) or [1.0] * n
            rows.append(factors + factors[-1:] * (longest - n))
        return torch.tensor(rows, dtype=torch.float64)

    def _close_epoch(self, epoch, losses, seconds):
        """Record an epoch's losses; return the positions of the lanes that are done."""
        sizes = self.streams.batch_sizes(self.alive)
        losses = losses.double().cpu().numpy()
        valid = self._validate()
        finished = []
        for position, lane in enumerate(self.alive):
            own = losses[position, : len(sizes[position])]
            outcome, net = self.outcomes[lane], self.lanes[lane].net
            outcome.lr = self._last_lr(lane, epoch, len(own))
            row = {"epoch": epoch + 1, "train_loss": float(np.average(own, weights=sizes[position])), "lr": outcome.lr}
            row |= {"dur": seconds / len(self.alive)} | ({} if valid is None else {"valid_loss": valid[position]})
            outcome.curve.append(row)
            bad = [kind for kind in _KINDS if not math.isfinite(row.get(_KINDS[kind], 0))]
            if bad:
                what = f"{bad[0]} loss became {row[_KINDS[bad[0]]]}"
                outcome.error = DivergenceError.at(epoch + 1, [outcome.lr], what)
                finished.append(position)
            elif self._is_over(position, lane, epoch, row) or epoch + 1 == net.max_epochs:
                finished.append(position)
        if self.on_epoch:
            least = np.fmin.reduce([self.outcomes[lane].curve[-1]["train_loss"] for lane in self.alive])
            self.on_epoch(len(self.alive), least)
        return finished

    def _last_lr(self, lane, epoch, n_batches):
        net = self.lanes[lane].net
        factors = net._lr_factors(epoch, n_batches)
        return net.optimizer_.param_groups[0]["initial_lr"] * (factors[-1] if factors else 1.0)

    def _is_over(self, position, lane, epoch, row):
        stopping = self.stopping[lane]
        if stopping is None:
            return False
        is_best, is_due = stopping.update(row["valid_loss"])
        if is_best:
            self.best[lane] = self.net.state(position)
        return is_due

    def _retire(self, positions):
        """Take finished lanes out, and go on with the others alone: a lane that is gone costs nothing."""
        for position in positions:
            lane = self.alive[position]
            outcome = self.outcomes[lane]
            if outcome.error is None:
                outcome.state = self.best.pop(lane, None) or self.net.state(position)
                outcome.optimizer = self.optimizer.lane_state(position)
                self._check_finite(outcome)
        kept = [p for p in range(len(self.alive)) if p not in set(positions)]
        self.alive = [self.alive[p] for p in kept]
        if kept:
            kept = torch.tensor(kept, device=self.net.flat.device)
            self.net, self.optimizer = self.net.select(kept), self.optimizer.select(kept)
            self.penalties = None if self.penalties is None else self.penalties[kept]

    def _check_finite(self, outcome):
        for name, tensor in outcome.state.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                what = f"{name} is no longer finite"
                outcome.error = DivergenceError.at(len(outcome.curve), [outcome.lr], what)

    def _validate(self):
        """Return the validation loss of each lane alive, or None where there is no validation set."""
        if self.lanes[self.alive[0]].valid is None:
            return None
        valid = np.zeros(len(self.alive))
        for lanes, X, target, weight in self.streams.validation(self.alive):
            positions = torch.tensor(lanes, device=self.net.flat.device)
            with torch.no_grad():
                outputs = self.net.select(positions).forward(X, False)
                losses = self._row_losses(outputs, target, weight)
            valid[lanes] += losses.double().cpu().numpy() * X.shape[1]
        sizes = [len(self.lanes[lane].valid) for lane in self.alive]
        return (valid / sizes).tolist()


_KINDS = {"training": "train_loss", "validation": "valid_loss"}
_TRIAL_ROWS = 8


class _Streams:
    """The rows that reach the lanes: lanes of one fold and one seed share their batches, gathered once."""

    def __init__(self, lanes):
        self.lanes = lanes
        self.batch_size = lanes[0].net.batch_size
        self.shuffles = lanes[0].net.shuffle
        self.keys = [self._key(lane) for lane in lanes]

    def _key(self, lane):
        rows, indices = rows_of(lane.train)
        return (rows.X.data_ptr(), len(lane.train), None if indices is None else lane.net.seed_, lane.net.seed_)

    def batch_sizes(self, alive):
        """Return the sizes of each lane's batches."""
        return [batch_sizes(len(self.lanes[lane].train), self.batch_size) for lane in alive]

    def _by_stream(self, alive):
        """Return the positions of the lanes of each stream."""
        groups = {}
        for position, lane in enumerate(alive):
            groups.setdefault(self.keys[lane], []).append(position)
        return list(groups.values())

    def batches(self, epoch, alive):
        """Yield, for each step of an epoch, its parts of equal length: (positions, X, target, weight)."""
        groups = self._by_stream(alive)
        orders = [self._order(self.lanes[alive[group[0]]], epoch) for group in groups]
        batches = [order.split(batch_sizes(len(order), self.batch_size)) for order in orders]
        for step in zip_longest(*batches):
            by_length = {}
            for chosen, positions in zip(step, groups, strict=True):
                if chosen is not None:
                    by_length.setdefault(len(chosen), []).append((chosen, positions))
            yield [self._part(parts, alive) for parts in by_length.values()]

    def _order(self, lane, epoch):
        rows, indices = rows_of(lane.train)
        n_rows = len(lane.train)
        order = permutation(n_rows, lane.net.seed_, epoch) if self.shuffles else torch.arange(n_rows)
        return (order if indices is None else indices[order]).to(rows.X.device)

    def _part(self, parts, alive):
        """Gather a batch for each stream, and hand it to the stream's lanes."""
        pairs = sorted((position, n) for n, (_, positions) in enumerate(parts) for position in positions)
        streams = [rows_of(self.lanes[alive[positions[0]]].train)[0] for _, positions in parts]
        X = torch.stack([rows.X[chosen] for rows, (chosen, _) in zip(streams, parts, strict=True)])
        target = torch.stack([rows.target[chosen] for rows, (chosen, _) in zip(streams, parts, strict=True)])
        of_lane = torch.tensor([n for _, n in pairs], device=X.device)
        weight = None
        if any(self.lanes[alive[position]].weight is not None for position, _ in pairs):
            weight = torch.stack([self._weights(alive[position], parts[n][0], X) for position, n in pairs])
        return [position for position, _ in pairs], X[of_lane], target[of_lane], weight  # (L, B, ...)

    def _weights(self, lane, chosen, X):
        weight = self.lanes[lane].weight
        return torch.ones(len(chosen), dtype=X.dtype, device=X.device) if weight is None else weight[chosen]

    def validation(self, alive):
        """Yield the validation rows in parts of equal length: (positions, X, target, weight)."""
        for positions in self._by_stream(alive):
            rows, indices = rows_of(self.lanes[alive[positions[0]]].valid)
            for chosen in indices.to(rows.X.device).split(EVALUATION_ROWS):
                yield self._part([(chosen, positions)], alive)
