"""Greedy selection of an ensemble from a library of models (Caruana et al. 2004)."""

import numpy as np


def select_greedily(predictions, y, loss, n_steps=100, sample_weight=None):
    """Choose models, with replacement, whose mean prediction has the smallest loss.

    Each step adds the model that makes the mean of the chosen predictions best. Of the ensembles on
    the way, the best is returned (Caruana et al. 2004, "Ensemble selection from libraries of
    models", section 2.2 and 2.3).

    Parameters
    ----------
    predictions : ndarray (n_models, n_rows, n_outputs)
        Out-of-fold predictions: probabilities of the classes, or predicted targets.
    y : ndarray (n_rows,) of int, or (n_rows, n_outputs) of float
        The numbers of the classes, or the targets.
    loss : {"log_loss", "squared_error"}
        What is made small.
    n_steps : int, default=100
        How many models are chosen at most, counted with repetition.
    sample_weight : ndarray (n_rows,), default=None
        The weight of each row's loss.

    Returns
    -------
    weights : ndarray (n_models,)
        The share of each model among the chosen ones; they sum to 1.
    best : float
        The loss of the mean prediction.
    """
    measure = _LOSSES[loss](predictions, y, sample_weight)
    total = np.zeros_like(measure.values[0])
    counts = np.zeros(len(predictions), dtype=int)
    best = np.inf
    best_counts = counts
    for step in range(1, n_steps + 1):
        losses = measure.losses(total, step)
        chosen = int(np.argmin(losses))
        total = total + measure.values[chosen]
        counts = counts.copy()
        counts[chosen] += 1
        if losses[chosen] < best:
            best = float(losses[chosen])
            best_counts = counts
    return best_counts / best_counts.sum(), best


class _LogLoss:
    """The log loss of the mean of predictions: only the true class's probability matters."""

    def __init__(self, predictions, y, sample_weight):
        rows = np.arange(len(y))
        # (n_models, n_rows)
        self.values = predictions[:, rows, y].astype(np.float64)
        self.shares = _normalize(sample_weight, len(y))

    def losses(self, total, n_chosen):
        """Return the loss of the ensemble with each of the models added (n_models,)."""
        probability = (total + self.values) / n_chosen
        # as scikit-learn does: a probability of 0 counts as the smallest that the type can tell
        smallest = np.finfo(np.float32).eps
        return -np.log(np.maximum(probability, smallest)) @ self.shares


class _SquaredError:
    """The squared error of the mean of predictions, summed over the outputs."""

    def __init__(self, predictions, y, sample_weight):
        self.values = predictions.astype(np.float64)
        self.y = np.asarray(y, dtype=np.float64).reshape(self.values.shape[1:])
        self.shares = _normalize(sample_weight, len(self.y))

    def losses(self, total, n_chosen):
        """Return the loss of the ensemble with each of the models added (n_models,)."""
        errors = (total + self.values) / n_chosen - self.y
        return np.square(errors).sum(axis=2) @ self.shares


_LOSSES = {"log_loss": _LogLoss, "squared_error": _SquaredError}


def _normalize(sample_weight, n_rows):
    """Return the share of each row in a mean."""
    if sample_weight is None:
        return np.full(n_rows, 1 / n_rows)
    weight = np.asarray(sample_weight, dtype=np.float64)
    return weight / weight.sum()
