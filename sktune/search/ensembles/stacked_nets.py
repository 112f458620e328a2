"""Networks of one architecture as one network, whose forward pass serves all of them."""

import numpy as np
from sklearn.base import is_classifier
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from sktune.bridge.reading import make_twin
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.overrides import find_override
from sktune.modules.reading import find_chain
from sktune.modules.structure import as_text, structure_of

# The activations of so many nets are held at once.
_MOST_LANES = 32


class StackedModule(nn.Module):
    """Modules of one structure, as one with outputs of shape (n_rows, n_modules, n_outputs)."""

    def __init__(self, modules):
        super().__init__()
        self.base = modules[0]
        self.states = stack_module_state(modules)

    def forward(self, X):
        """Return the outputs of all modules for the same rows."""

        def apply(parameters, buffers):
            return functional_call(self.base, (parameters, buffers), (X,))

        # (L, B, C) -> (B, L, C)
        return vmap(apply)(*self.states).transpose(0, 1)


class MeanOfLanes:
    """Turns outputs of shape (n_rows, n_modules, n_outputs) into the weighted mean of predictions.

    Parameters
    ----------
    nonlinearity : callable
        What each net applies to its own outputs.
    weights : ndarray of shape (n_modules,)
        Their sum is 1.
    drops_axis : bool
        Whether a single output of a net stands for two classes.
    """

    def __init__(self, nonlinearity, weights, *, drops_axis):
        self.nonlinearity = nonlinearity
        self.weights = weights
        self.drops_axis = drops_axis

    def __call__(self, outputs):
        """Return the mean: a tensor of shape (n_rows, n_predicted)."""
        total = 0.0
        for lane, weight in enumerate(self.weights):
            output = outputs[:, lane]
            if self.drops_axis and output.shape[1:] == (1,):
                output = output[:, 0]
            total = total + float(weight) * self.nonlinearity(output)
        return total


def stack_alike(models, weights):
    """Yield models and their weights, in which networks of one architecture are one model.

    Parameters
    ----------
    models : list of fitted estimators
    weights : ndarray of shape (n_models,)

    Yields
    ------
    model, weight : estimator object and float
        The sum of weight times prediction is that over the models given, but for rounding.
    """
    groups = {}
    for position, model in enumerate(models):
        groups.setdefault(_find_key(model, position), []).append(position)
    for positions in groups.values():
        for start in range(0, len(positions), _MOST_LANES):
            chosen = positions[start : start + _MOST_LANES]
            if len(chosen) == 1:
                yield models[chosen[0]], weights[chosen[0]]
            else:
                yield _stack([models[n] for n in chosen], weights[chosen]), weights[chosen].sum()


def _find_key(model, position):
    """Return what is equal in models that can be stacked; of any other, what no other one has."""
    if not isinstance(model, NetworkEstimator) or find_override(model):
        return position
    if not model._has_standard_data() or find_chain(model.module_) is None:
        return position
    classes = None
    if is_classifier(model):
        classes = tuple(np.asarray(model.classes_).tolist())
    criterion = (type(model.criterion_), as_text(model.predict_nonlinearity))
    device = str(model.device_)
    return (type(model), structure_of(model.module_), criterion, classes, device)


def _stack(nets, weights):
    """Return one net that predicts the weighted mean of nets."""
    first = nets[0]
    modules = [net.module_ for net in nets]
    nonlinearity = first._get_predict_nonlinearity()
    twin = make_twin(first)
    mean = MeanOfLanes(nonlinearity, weights / weights.sum(), drops_axis=is_classifier(first))
    for module in modules:
        # all modules have to be in the same mode
        module.eval()
    parts = {"module_": StackedModule(modules), "predict_nonlinearity": mean}
    vars(twin).update(parts)
    return twin
