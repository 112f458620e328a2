"""The learning-rate range test."""

import math
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import indexable

from sktune.inspection.lr_range_result import LRRangeResult
from sktune.inspection.lr_range_training import rate_name, train_in_parallel, train_in_sweep
from sktune.inspection.nets import find_net
from sktune.runtime.names import check_name
from sktune.runtime.seeds import draw_seed

_METHODS = ("parallel", "sweep")
_MIN_RATES = 8
# By default a rate is trained for so many steps and epochs at least.
_MIN_STEPS = 100
_MIN_EPOCHS = 3


def lr_range_test(
    estimator,
    X,
    y=None,
    *,
    lr_min=1e-6,
    lr_max=10.0,
    num=64,
    method="parallel",
    cv=3,
    n_epochs=None,
    groups=None,
    params=None,
    n_jobs=None,
    random_state=None,
    verbose=0,
):
    """Find the learning rates at which a network learns, and those at which it diverges.

    Parameters
    ----------
    estimator : network, or Pipeline that ends in one
        A net of sktune's or of skorch's. It stays as it is. A schedule of its learning rate
        multiplies each of the rates; it does not stop early.
    X, y : array-like, frame, or what else `fit` takes
    lr_min, lr_max : float, default=1e-6, 10.0
        The lowest and the highest rate.
    num : int, default=64
        The number of rates, in geometric steps; at least 8. With ``method="sweep"`` it is the
        number of training steps, of which 300 are a good choice.
    method : {"parallel", "sweep"}, default="parallel"
        ``"parallel"`` trains a copy of the network at each rate on each split. The copies begin
        with the same weights and are trained together. ``"sweep"`` trains one network on all rows,
        whose rate grows from step to step (Smith 2017): it is quicker, and each of its losses
        depends on all the rates before.
    cv : int, splitter or iterable, default=3
        As in :func:`sklearn.model_selection.cross_validate`; a sweep does not split.
    n_epochs : int or None, default=None
        How many epochs each rate is trained for. None is as many as take 100 steps, and 3 at
        least; a sweep takes as many as it needs.
    groups : array-like of shape (n_rows,), default=None
        Groups of rows, for the splitter.
    params : dict, default=None
        Arguments of the estimator's `fit`, such as `sample_weight`.
    n_jobs : int, default=None
        As in :class:`sktune.GridSearchCV`.
    random_state : int, RandomState or None, default=None
        The seed of a network that has none of its own, for the copies to begin alike.
    verbose : int, default=0
        Above 0, a progress bar is shown.

    Returns
    -------
    result : LRRangeResult
        Rates, losses, `lower_edge`, `good_region`, `divergent_edge`, `suggestion` and `space`.

    Raises
    ------
    TypeError
        If the estimator is no network, nor a Pipeline that ends in one.
    ValueError
        If an argument is out of its range, or if learning does not begin, or training does not
        diverge, within the rates: the message says what to widen. The errors of a fit at a rate
        that changes nothing are raised as they are.

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktune import NeuralNetClassifier, lr_range_test
    >>> X, y = load_iris(return_X_y=True)
    >>> net = make_pipeline(StandardScaler(), NeuralNetClassifier(random_state=0))
    >>> result = lr_range_test(net, X, y, num=24, n_epochs=10)
    >>> result.lower_edge < result.suggestion < result.divergent_edge
    True
    """
    _check_arguments(lr_min, lr_max, num, method, n_epochs)
    net, prefix = find_net(estimator)
    X, y, groups = indexable(X, y, groups)
    params = params or {}
    rates = np.geomspace(lr_min, lr_max, num)
    seed = draw_seed(random_state)
    ready = _prepare(estimator, seed)
    with _seeded_generators(net, seed):
        if method == "sweep":
            _check_schedule(net)
            losses, untrained_loss = train_in_sweep(ready, rates, X, y, params=params)
            return LRRangeResult(method, rates, losses, None, untrained_loss)
        splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y, groups))
        if n_epochs is None:
            n_epochs = _choose_n_epochs(net, len(splits[0][0]))
        ready.set_params(**{f"{prefix}max_epochs": n_epochs})
        options = {"params": params, "n_jobs": n_jobs, "verbose": verbose}
        found = train_in_parallel(ready, rates, X, y, splits=splits, **options)
    return LRRangeResult(method, rates, *found)


def _check_arguments(lr_min, lr_max, num, method, n_epochs):
    """Check what can be told without the data."""
    for name, rate in (("lr_min", lr_min), ("lr_max", lr_max)):
        if not isinstance(rate, Real) or not 0 < rate < math.inf:
            raise ValueError(f"{name} must be a positive finite number, got {name}={rate!r}")
    if lr_min >= lr_max:
        raise ValueError(f"lr_min must be below lr_max, got lr_min={lr_min} and lr_max={lr_max}")
    _check_count("num", num, _MIN_RATES)
    if n_epochs is not None:
        _check_count("n_epochs", n_epochs, 1)
    check_name("method", method, _METHODS)


def _check_count(name, value, least):
    is_int = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_int or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {name}={value!r}")


def _check_schedule(net):
    """Raise where a schedule of the net's would set the rates of a sweep."""
    schedule = getattr(net, "lr_schedule", "constant")
    if schedule != "constant" or getattr(net, "lr_schedule__warmup", 0):
        raise ValueError(
            "the network must have no schedule under method='sweep', which sets the rate of each "
            f"step, got lr_schedule={schedule!r}: use method='parallel'"
        )


def _prepare(estimator, seed):
    """Return a copy of an estimator, seeded, that trains in silence and does not stop early."""
    net, prefix = find_net(estimator)
    known = net.get_params(deep=False)
    changed = {"verbose": 0}
    if "early_stopping" in known:
        changed["early_stopping"] = False
    if "random_state" in known and not isinstance(known["random_state"], Integral):
        changed["random_state"] = seed
    if rate_name(estimator).removeprefix(prefix) not in known:
        raise ValueError(f"estimator must have a parameter lr, got {type(net).__name__} without it")
    named = {f"{prefix}{name}": value for name, value in changed.items()}
    return clone(estimator).set_params(**named)


@contextmanager
def _seeded_generators(net, seed):
    """Seed torch's generators for a net of skorch's, which draws from them, and restore them."""
    if "random_state" in net.get_params(deep=False):
        yield
        return
    devices = [net.device] if str(net.device).startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _choose_n_epochs(net, n_rows):
    """Return how many epochs take enough steps for a difference to be seen."""
    batch_size = net.batch_size
    # -1 is all rows at once; what is no size at all, fit refuses in its own words
    if not isinstance(batch_size, Integral) or batch_size < 1:
        batch_size = n_rows
    n_steps = math.ceil(n_rows / batch_size)
    return max(_MIN_EPOCHS, math.ceil(_MIN_STEPS / n_steps))
