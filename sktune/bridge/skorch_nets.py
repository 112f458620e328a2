"""skorch's own nets, which draw all random numbers from torch's global generator."""

from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import skorch
import torch
from torch import nn
from torch.utils.data import Subset

from sktune.bridge.reading import find_batch_size, find_valid_batches, read_optimizer
from sktune.engine.sampling import DrawnSampling
from sktune.engine.specs import FitSpec, InitialModule, LossSpec
from sktune.estimators.overrides import find_clips
from sktune.modules.dropout import dropout_layers, serve_dropout
from sktune.runtime.devices import name_device
from sktune.runtime.dtypes import floating_dtype
from sktune.runtime.seeds import seeded
from sktune.runtime.threads import limited_threads
from sktune.training.losses import match_flat, match_logarithms, match_nothing
from sktune.training.rates import LRSchedule
from sktune.training.rows import Rows, to_device

KINDS = (
    skorch.NeuralNet,
    skorch.NeuralNetClassifier,
    skorch.NeuralNetBinaryClassifier,
    skorch.NeuralNetRegressor,
)


@contextmanager
def stopped_before_training(net, found, seed):
    """Return a context in which ``net.fit`` stops where its training would begin.

    Parameters
    ----------
    net : NeuralNet
        Its class is replaced within the context.
    found : list
        It gets a tuple: the reason why the arguments of the training loop keep the fit out of a
        group, or ``""`` followed by the training set, the validation set or None, and the state of
        torch's generator.
    seed : int
        All random numbers of the fit follow from it.
    """
    kind = type(net)

    def fit(self, X, y=None, **fit_params):
        # A process that has started torch's threads cannot be forked any more.
        with seeded(seed << 1, self.device or "cpu"), limited_threads(1):
            return kind.fit(self, X, y, **fit_params)

    def fit_loop(self, X, y=None, epochs=None, *, _routing_method="fit", **fit_params):
        reason = why_told(epochs, **fit_params)
        if reason:
            found.append((reason,))
            return self
        self.check_data(X, y)
        self.check_training_readiness()
        generator_state = torch.get_rng_state()
        train, valid = self.get_split_datasets(X, y)
        found.append(("", train, valid, generator_state))
        return self

    net.__class__ = type(kind.__name__, (kind,), {"fit": fit, "fit_loop": fit_loop})
    try:
        yield
    finally:
        net.__class__ = kind


def why_told(epochs=None, **fit_params):
    """Return why such arguments of the training loop prevent fusing, or an empty string."""
    names = sorted(fit_params)
    if epochs is not None:
        names.append("epochs")
    if not names:
        return ""
    return f"its fit is given {', '.join(names)}, for its training loop and its module's forward"


def hand_over(net, hook):
    """Have the next ``net.fit`` adopt what a hook has; it runs as usual if there is nothing."""
    kind = type(net)

    def fit(self, X, y=None, **fit_params):
        self.__class__ = kind
        return self if hook.adopt(self, X, fit_params) else kind.fit(self, X, y, **fit_params)

    net.__class__ = type(kind.__name__, (kind,), {"fit": fit})


def read_rows(net, dataset):
    """Return the rows of a dataset of skorch; None if they are not arrays of the module's type."""
    source = _source(dataset)
    if not all(isinstance(part, np.ndarray | torch.Tensor) for part in (source.X, source.y)):
        return None
    device = net.device or "cpu"
    X = to_device(np.asarray(source.X), None, device)
    target = to_device(np.asarray(source.y), None, device)
    dtype = floating_dtype(net.module_)
    if any(part.is_floating_point() and part.dtype != dtype for part in (X, target)):
        return None
    rows = Rows(X, dtype=dtype, device=X.device)
    rows.target = target
    return rows


def _source(dataset):
    """Return the dataset that nested subsets take their rows from."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def put_on(rows, dataset):
    """Return a dataset with `rows` in the place of its source; None for None."""
    if dataset is None:
        return None
    if isinstance(dataset, Subset):
        return Subset(put_on(rows, dataset.dataset), dataset.indices)
    return rows


def read_skorch_spec(net, tables, rows, train, valid, generator_state):
    """Read an initialized net of skorch into a :class:`FitSpec`.

    Parameters
    ----------
    net : NeuralNet
        It was stopped where its training would begin.
    tables : Tables
        The table is added to these.
    rows : Rows
        The table: all rows of the fit.
    train, valid : Dataset or None
        The training and the validation set.
    generator_state : ByteTensor
        The state of torch's generator when the training would begin.
    """
    table_name, positions = tables.add(rows)
    row_set = tables.find_row_set(
        table_name,
        positions,
        put_on(rows, train),
        put_on(rows, valid),
        **find_valid_batches(net, valid),
    )
    sampling = DrawnSampling(
        batch_size=find_batch_size(net, len(train)),
        shuffle=bool(net.get_params_for("iterator_train").get("shuffle", False)),
        generator_state=generator_state,
        has_valid=valid is not None,
    )
    module = deepcopy(net.module_)
    serve_dropout(module, 0)
    return FitSpec(
        module=InitialModule(module),
        dropout=tuple(layer.p for layer in dropout_layers(module)),
        loss=LossSpec(net.criterion_, _find_match(net)),
        optimizer=read_optimizer(net.optimizer_),
        schedule=LRSchedule("constant", net.max_epochs),
        l1=0.0,
        l2=0.0,
        sampling=sampling,
        rows=row_set,
        n_epochs=int(net.max_epochs),
        seed=0,
        must_be_finite=False,
        is_regressor=isinstance(net, skorch.NeuralNetRegressor),
        device=name_device(net.device, rows.X.device),
        clips=find_clips(net),
    )


def _find_match(net):
    """Return how outputs and targets are changed for the criterion, as in ``net.get_loss``."""
    if isinstance(net, skorch.NeuralNetBinaryClassifier):
        return match_flat
    if isinstance(net, skorch.NeuralNetClassifier) and isinstance(net.criterion_, nn.NLLLoss):
        return match_logarithms
    return match_nothing
