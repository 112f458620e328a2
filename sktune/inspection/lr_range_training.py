"""The trainings of a learning-rate range test: many rates side by side, or one run through all."""

import warnings

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch.callbacks import Callback
from skorch.dataset import get_len, unpack_data

from sktune.bridge.seam import fused_tasks
from sktune.inspection.nets import find_net, transform_rows
from sktune.modules.work import few_threads
from sktune.training.divergence import DivergenceError

# A rate by which no weight changes: what it ends with is the loss without training.
_STANDS_STILL = 1e-30
# A share of the steps of a sweep, whose mean loss is that without training.
_UNTRAINED_SHARE = 0.1


def train_in_parallel(estimator, rates, X, y, *, splits, params, n_jobs, verbose):
    """Train a copy of an estimator at each rate on each split, together.

    Parameters
    ----------
    estimator : estimator object
        It trains for as many epochs as its parameters say, and stays as it is.
    rates : ndarray of shape (num,)
    X, y : data, as `fit` takes them
    splits : list of tuple of (ndarray, ndarray)
        The rows to train on, and those that are held out.
    params : dict
        Arguments of `fit`.
    n_jobs, verbose : int
        As in :class:`sktune.GridSearchCV`.

    Returns
    -------
    train_losses, valid_losses : ndarray of shape (num, n_splits)
        NaN where the fit diverged.
    untrained_loss : float
    """
    name = rate_name(estimator)
    _try_splits(estimator, name, X, y, splits, params)
    search = GridSearchCV(
        estimator,
        # all in one list, for all to be trained together
        {name: [_STANDS_STILL, *rates.tolist()]},
        scoring=_score_losses,
        cv=splits,
        n_jobs=n_jobs,
        refit=False,
        error_score=np.nan,
    )
    # What can be wrong with data and settings has been told in the trial. That fits at high rates
    # fail is the answer looked for.
    with warnings.catch_warnings(), fused_tasks(progress=verbose > 0):
        warnings.simplefilter("ignore")
        search.fit(X, y, **params)
    train_losses = _read_losses(search.cv_results_, "train", len(splits))
    valid_losses = _read_losses(search.cv_results_, "valid", len(splits))
    return train_losses[1:], valid_losses[1:], float(train_losses[0].mean())


def _try_splits(estimator, name, X, y, splits, params):
    """Train for one epoch on each split at a rate that changes nothing: errors are the user's."""
    _, prefix = find_net(estimator)
    trial = clone(estimator).set_params(**{name: _STANDS_STILL, f"{prefix}max_epochs": 1})
    with fused_tasks():
        cross_validate(
            trial, X, y, cv=splits, params=params, scoring=_score_losses, error_score="raise"
        )


def rate_name(estimator):
    """Return the name of the parameter of an estimator that is the learning rate of its network."""
    net, prefix = find_net(estimator)
    # skorch prefers the optimizer's own
    return f"{prefix}optimizer__lr" if hasattr(net, "optimizer__lr") else f"{prefix}lr"


def _read_losses(results, kind, n_splits):
    """Return losses of `cv_results_`, an array (n_candidates, n_splits)."""
    return np.stack([results[f"split{k}_test_{kind}"] for k in range(n_splits)], axis=1)


def _score_losses(estimator, X, y):
    """Return the training loss of the last epoch, and the loss on the rows held out."""
    net, _ = find_net(estimator)
    return {
        "train": _read_last_loss(net),
        "valid": _compute_loss(net, transform_rows(estimator, X), y),
    }


def _read_last_loss(net):
    """Return the mean training loss of the last epoch, also where no callback has recorded it."""
    epoch = net.history[-1]
    if "train_loss" in epoch:
        return epoch["train_loss"]
    batches = epoch["batches"]
    losses = [batch["train_loss"] for batch in batches]
    return float(np.average(losses, weights=[batch["train_batch_size"] for batch in batches]))


def _compute_loss(net, X, y):
    """Return the mean loss of a fitted net on some rows, by its own criterion."""
    losses = []
    sizes = []
    # for small networks, to start more threads takes longer than the batches do
    with few_threads(net.module_, get_len(X), getattr(X, "shape", (1,))[1:]):
        for batch in net.get_iterator(net.get_dataset(X, y), training=False):
            losses.append(net.validation_step(batch)["loss"].item())
            rows, _ = unpack_data(batch)
            sizes.append(get_len(rows))
    return float(np.average(losses, weights=sizes))


def train_in_sweep(estimator, rates, X, y, *, params):
    """Train a copy of an estimator once, each step at the next rate (Smith 2017, section 3.3).

    Parameters
    ----------
    estimator, rates, X, y, params
        As in :func:`train_in_parallel`. The rates may be scaled for each group of the optimizer's
        parameters.

    Returns
    -------
    train_losses : ndarray of shape (num, 1)
        The loss of each step; NaN once it has diverged.
    untrained_loss : float
        The mean over the first tenth of the steps.
    """
    sweep = _Sweep(rates)
    net, prefix = find_net(estimator)
    callbacks = [] if net.callbacks in (None, "disable") else list(net.callbacks)
    run = clone(estimator)
    run.set_params(
        **{
            rate_name(estimator): float(rates[0]),
            # an epoch has one step at least
            f"{prefix}max_epochs": len(rates),
            f"{prefix}callbacks": [*callbacks, ("lr_sweep", sweep)],
        }
    )
    try:
        run.fit(X, y, **params)
    except DivergenceError:
        sweep.is_over = True
    if not sweep.is_over:
        raise RuntimeError(
            f"a sweep must take num={len(rates)} steps, but the training was stopped after "
            f"{len(sweep.losses)}: leave out callbacks that stop it"
        )
    losses = np.full((len(rates), 1), np.nan)
    losses[: len(sweep.losses), 0] = sweep.losses
    n_untrained = max(1, int(_UNTRAINED_SHARE * len(rates)))
    return losses, float(losses[:n_untrained].mean())


class _Sweep(Callback):
    """Sets the learning rate of each step, keeps its loss, and stops the training in the end."""

    def __init__(self, rates):
        self.rates = rates
        self.losses = []
        self.is_over = False

    def __sklearn_clone__(self):
        # the losses are read from the one that was given
        return self

    def on_train_begin(self, net, **kwargs):
        """Keep the rates of the optimizer's groups, which the first rate of the sweep has set."""
        self.first_rates_ = [group["lr"] for group in net.optimizer_.param_groups]

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        """Set the rate of the step."""
        if not training:
            return
        factor = self.rates[len(self.losses)] / self.rates[0]
        groups = net.optimizer_.param_groups
        for group, first_rate in zip(groups, self.first_rates_, strict=True):
            group["lr"] = first_rate * factor

    def on_batch_end(self, net, batch=None, training=None, loss=None, **kwargs):
        """Keep the loss of the step."""
        if not training:
            return
        self.losses.append(loss.item())
        if len(self.losses) == len(self.rates) or not np.isfinite(self.losses[-1]):
            self.is_over = True
            # how skorch's callbacks end a training
            raise KeyboardInterrupt
