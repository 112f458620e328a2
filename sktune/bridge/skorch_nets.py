"""skorch's own nets in the engine: what a fit of theirs draws from torch's generator is drawn alike here."""

from contextlib import contextmanager
from copy import copy, deepcopy

import numpy as np
import skorch
import torch
from torch import nn
from torch.utils.data import Subset

from sktune.engine.lanes import Lane, count_valid_batches, read_optimizer
from sktune.modules.dropout import dropout_layers, serve_dropout
from sktune.runtime.dtypes import floating_dtype
from sktune.runtime.seeds import seeded
from sktune.runtime.threads import limited_threads
from sktune.training.rows import Rows, rows_of, to_device

KINDS = (
    skorch.NeuralNet,
    skorch.NeuralNetClassifier,
    skorch.NeuralNetBinaryClassifier,
    skorch.NeuralNetRegressor,
)


@contextmanager
def stopped_before_training(net, found, seed):
    """Let ``net.fit`` end where its training would begin, all that it draws following from `seed`.

    `found` gets what :func:`why_told` says of its arguments, the training set, the validation set or None, and the
    generator as it then is.
    """
    kind = type(net)

    def fit(self, X, y=None, **fit_params):
        # a process that has started torch's threads cannot be forked any more, and these steps are short
        with seeded(seed << 1, self.device or "cpu"), limited_threads(1):
            return kind.fit(self, X, y, **fit_params)

    def fit_loop(self, X, y=None, epochs=None, *, _routing_method="fit", **fit_params):
        if reason := why_told(epochs, **fit_params):
            found.append((reason,))
            return self
        self.check_data(X, y)
        self.check_training_readiness()
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        found.append(("", *self.get_split_datasets(X, y), generator))
        return self

    net.__class__ = type(kind.__name__, (kind,), {"fit": fit, "fit_loop": fit_loop})
    try:
        yield
    finally:
        net.__class__ = kind


def why_told(epochs=None, **fit_params):
    """Return why a fit stays out whose training loop is given such arguments, or nothing."""
    names = sorted(fit_params) + ["epochs"] * (epochs is not None)
    if not names:
        return ""
    return f"its fit is given {', '.join(names)}, for its training loop and its module's forward"


def hand_over(net, hook):
    """Let the next ``net.fit`` ask a hook for what was trained, and run if there is nothing."""
    kind = type(net)

    def fit(self, X, y=None, **fit_params):
        self.__class__ = kind
        return self if hook.adopt(self, X, fit_params) else kind.fit(self, X, y, **fit_params)

    net.__class__ = type(kind.__name__, (kind,), {"fit": fit})


def read_rows(net, dataset):
    """Return the rows of a dataset of skorch's as tensors, or None if they are no arrays of the module's type."""
    source = _source(dataset)
    if not all(isinstance(part, np.ndarray | torch.Tensor) for part in (source.X, source.y)):
        return None
    X, target = (
        to_device(np.asarray(part), None, net.device or "cpu") for part in (source.X, source.y)
    )
    dtype = floating_dtype(net.module_)
    if any(part.is_floating_point() and part.dtype != dtype for part in (X, target)):
        return None
    rows = Rows(X, dtype=dtype, device=X.device)
    rows.target = target
    return rows


def _source(dataset, rows=None):
    """Return the dataset under subsets; or, if there are `rows`, these in its place."""
    if isinstance(dataset, Subset):
        source = _source(dataset.dataset, rows)
        return source if rows is None else Subset(source, dataset.indices)
    return dataset if rows is None else rows


class SkorchLane(Lane):
    """A fit of a net of skorch's; its batches are its own."""

    must_be_finite = masks_follow_from_seeds = False
    seed = 0

    def __init__(self, net, rows, train, valid, generator):
        self.net, self.train, self.valid = net, _source(train, rows), valid and _source(valid, rows)
        self.module, self.criterion = deepcopy(net.module_), net.criterion_
        self.optimizer, self.options = read_optimizer(net.optimizer_)
        serve_dropout(self.module, self.seed)
        self.n_epochs, self.n_rows, self.penalties, self.stopping = (
            net.max_epochs,
            len(train),
            (0.0, 0.0),
            None,
        )
        self.dropout = [layer.p for layer in dropout_layers(self.module)]
        self.generator = generator
        self.batch_size = len(train) if net.batch_size == -1 else net.batch_size
        self.shuffles = net.get_params_for("iterator_train").get("shuffle", False)
        self.batches = SkorchBatches(self)
        self.n_valid_batches = count_valid_batches(net, valid)

    def fresh(self):
        """Return the lane as it is before its training, of which there may be a second attempt."""
        lane = copy(self)
        lane.generator = self.generator.clone_state()
        lane.batches = SkorchBatches(lane)
        return lane

    def for_trial(self):
        """Return a lane to try a step with: torch's own masks would be others than those of the nets alone."""
        lane = copy(self)
        lane.dropout = [0.0] * len(self.dropout)
        return lane

    def match(self, y_pred, y_true):
        """Return prediction and target as the criterion takes them in ``get_loss``."""
        if isinstance(self.net, skorch.NeuralNetBinaryClassifier):
            y_pred = y_pred.reshape(-1)
        if isinstance(self.criterion, nn.NLLLoss) and isinstance(
            self.net, skorch.NeuralNetClassifier
        ):
            y_pred = torch.log(y_pred + torch.finfo(y_pred.dtype).eps)
        return y_pred, y_true

    @property
    def stream(self):
        """What the batches follow from."""
        return id(self)

    def rates(self, epoch):
        """Return the learning rates of an epoch's steps."""
        return [self.options["lr"]] * len(self.batches.sizes)

    @staticmethod
    def masks(lanes):
        """Return the masks of each dropout layer in the lanes."""
        generators = [lane.generator for lane in lanes]
        return [
            DrawnMasks(generators, rates)
            for rates in zip(*(lane.dropout for lane in lanes), strict=True)
        ]


class SkorchBatches:
    """The batches that torch's DataLoader would make."""

    def __init__(self, lane):
        self.lane, (self.rows, self.indices) = lane, rows_of(lane.train)
        full, rest = divmod(lane.n_rows, lane.batch_size)
        self.sizes = [lane.batch_size] * full + [rest] * (rest > 0)

    def __len__(self):
        return len(self.sizes)

    def order(self, epoch):
        """Return which rows an epoch takes, one after the other; asked for once, for the order is drawn."""
        lane = self.lane
        if epoch and lane.valid is not None:
            _draw(
                lane.generator
            )  # each loader draws a seed for its workers, that of the validation set, too
        _draw(lane.generator)
        order = torch.arange(lane.n_rows)
        if lane.shuffles:
            order = torch.randperm(
                lane.n_rows, generator=torch.Generator().manual_seed(_draw(lane.generator))
            )
        return order if self.indices is None else self.indices[order]

    def epoch(self, epoch):
        """Yield the batches of an epoch, counted from 0."""
        for chosen in self.order(epoch).split(self.sizes):
            yield self.rows.take(chosen)


def _draw(generator):
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


class DrawnMasks:
    """The masks of a dropout layer, each lane's drawn from its own generator as torch draws them; on a CPU."""

    def __init__(self, generators, rates):
        self.generators, self.rates, self.place = generators, rates, (0, 0)

    def select(self, lanes):
        """Return the masks of some lanes only."""
        return DrawnMasks(
            [self.generators[lane] for lane in lanes], [self.rates[lane] for lane in lanes]
        )

    def factors(self, shape, place, X):
        """Return (L, *shape)."""
        factors = X.new_ones(len(self.rates), *shape)
        for lane, (p, generator) in enumerate(zip(self.rates, self.generators, strict=True)):
            if p:
                kept = torch.empty(shape, dtype=torch.bool).bernoulli_(1 - p, generator=generator)
                factors[lane].copy_(kept).mul_(1 / (1 - p))
        return factors
