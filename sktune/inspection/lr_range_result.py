"""What a learning-rate range test found, and how its regions are read off the losses."""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import median_filter
from scipy.stats import loguniform

# A rate learns where the loss falls by this share of the largest fall, and is good by the second.
_LEARNS = 0.1
_IS_GOOD = 0.9
# A fit diverges where its loss falls by no more than this share of the largest fall.
_IS_LOST = 0.01
# The largest fall must be at least this share of the loss without training.
_MIN_FALL = 0.01
# The rates over which the loss of each is smoothed: a spike of one or two rates is left out.
_MEDIAN_WIDTH = 5
# A sweep averages over this share of its steps.
_SWEEP_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class LRRangeResult:
    """What :func:`sktune.lr_range_test` found; ``print`` it for a summary.

    Attributes
    ----------
    method : str
        ``"parallel"`` or ``"sweep"``.
    rates : ndarray of shape (num,)
        The learning rates, in geometric steps.
    train_losses : ndarray of shape (num, n_splits)
        The mean training loss of the last epoch, or in a sweep that of the step; NaN where the fit
        diverged.
    valid_losses : ndarray of shape (num, n_splits) or None
        The loss on the rows that were held out; None in a sweep, which holds out none.
    untrained_loss : float
        The training loss without any training, over all splits.
    smoothed_losses : ndarray of shape (num,)
        The training losses over all splits, smoothed over the rates; inf where the fit diverged.
        All that follows is read off these: of the training, because the lowest loss of rows that
        were held out moves to other rates with the number of epochs.
    lower_edge : float
        The lowest rate of those around the best one at which the loss falls by at least a tenth of
        the largest fall.
    good_region : tuple of (float, float)
        The lowest and the highest rate of those around the best one at which the loss falls by at
        least nine tenths of the largest fall. In a sweep, the rates from `lower_edge` to that of
        the lowest loss, over which it falls.
    divergent_edge : float
        The lowest rate above the best one at which the network is no better than without training.
    suggestion : float
        The geometric middle of the good region, one of the rates.
    """

    method: str
    rates: np.ndarray
    train_losses: np.ndarray
    valid_losses: np.ndarray | None
    untrained_loss: float
    smoothed_losses: np.ndarray = field(init=False)
    lower_edge: float = field(init=False)
    good_region: tuple = field(init=False)
    divergent_edge: float = field(init=False)
    suggestion: float = field(init=False)

    def __post_init__(self):
        smooth = _smooth_sweep if self.method == "sweep" else _smooth_rates
        smoothed = smooth(self.train_losses)
        falls = self.untrained_loss - smoothed
        lower, good, divergent = _find_regions(
            self.rates, falls, self.untrained_loss, is_sweep=self.method == "sweep"
        )
        low, high = good
        found = {
            "smoothed_losses": smoothed,
            "lower_edge": float(self.rates[lower]),
            "good_region": (float(self.rates[low]), float(self.rates[high])),
            "divergent_edge": float(self.rates[divergent]),
            "suggestion": float(self.rates[(low + high) // 2]),
        }
        for name, value in found.items():
            # the way in which a frozen dataclass sets a field of its own
            object.__setattr__(self, name, value)

    @property
    def space(self):
        """The distribution to search: ``loguniform`` from the lower edge to the last good rate."""
        return loguniform(self.lower_edge, self.good_region[1])

    def to_frame(self):
        """Return a pandas frame with a row for each rate.

        Returns
        -------
        frame : DataFrame of shape (num, 4 or 6)
            ``lr``, ``train_loss`` and ``train_loss_std`` (mean and standard deviation over the
            splits), maybe ``valid_loss`` and ``valid_loss_std``, and ``smoothed_loss``.
        """
        # pandas is an optional dependency
        from pandas import DataFrame

        columns = {"lr": self.rates}
        losses = {"train_loss": self.train_losses, "valid_loss": self.valid_losses}
        for name, values in losses.items():
            if values is not None:
                columns[name] = values.mean(axis=1)
                columns[f"{name}_std"] = values.std(axis=1)
        columns["smoothed_loss"] = self.smoothed_losses
        return DataFrame(columns)

    def __str__(self):
        n_splits = self.train_losses.shape[1]
        low, high = self.good_region
        splits = "" if self.method == "sweep" else f" on {n_splits} splits"
        return "\n".join(
            [
                f"{len(self.rates)} learning rates from {self.rates[0]:.3g} to "
                f"{self.rates[-1]:.3g}{splits}, method={self.method!r}",
                f"  learning begins at  {self.lower_edge:.3g}",
                f"  good region         {low:.3g} to {high:.3g}",
                f"  training diverges   from {self.divergent_edge:.3g}",
                f"  suggestion          {self.suggestion:.3g}",
                f"  space to search     loguniform({self.lower_edge:.3g}, {high:.3g})",
            ]
        )


def _smooth_rates(losses):
    """Return the median over neighbouring rates of the mean loss over splits.

    A median moves no edge of a curve that rises or falls over the rates.
    """
    means = losses.mean(axis=1)
    means = np.where(np.isfinite(means), means, np.inf)
    return median_filter(means, size=_MEDIAN_WIDTH, mode="nearest")


def _smooth_sweep(losses):
    """Return the exponential average of the losses of steps, its bias corrected.

    The correction is that of Kingma and Ba 2015, section 3. A loss that is not finite ends the
    run: it and all that follow are inf.
    """
    keep = 1 - 1 / max(2.0, _SWEEP_SHARE * len(losses))
    average = 0.0
    smoothed = np.full(len(losses), np.inf)
    for n_steps, loss in enumerate(losses[:, 0], start=1):
        if not np.isfinite(loss):
            break
        average = keep * average + (1 - keep) * loss
        smoothed[n_steps - 1] = average / (1 - keep**n_steps)
    return smoothed


def _find_regions(rates, falls, untrained_loss, is_sweep):
    """Return the positions of the lower edge, of the good region's ends and of the divergent edge.

    Parameters
    ----------
    rates : ndarray of shape (num,)
    falls : ndarray of shape (num,)
        By how much each rate lowers the smoothed loss; -inf where it diverges.
    untrained_loss : float
        The loss without training.
    is_sweep : bool
        Whether the losses are those of one run.

    Raises
    ------
    ValueError
        If an edge is not among the rates; it says what to widen.
    """
    best = int(np.argmax(falls))
    _check_that_something_learns(rates, falls, untrained_loss)
    lower, _ = _grow(falls >= _LEARNS * falls[best], best)
    if lower == 0:
        raise ValueError(
            "lr_min must be a rate that is too low to learn, but the loss falls already at "
            f"lr_min={rates[0]:.3g}: try lr_min={rates[0] / 100:.3g}"
        )
    is_lost = falls <= _IS_LOST * falls[best]
    is_lost[:best] = False
    if not is_lost.any():
        raise ValueError(
            "lr_max must be a rate at which training diverges, but it does not up to "
            f"lr_max={rates[-1]:.3g}: try lr_max={rates[-1] * 100:.3g}"
        )
    # the loss of a sweep goes on falling until the rate is too high
    good = (lower, best) if is_sweep else _grow(falls >= _IS_GOOD * falls[best], best)
    if lower == good[1]:
        raise ValueError(
            f"num must be large enough for two rates that learn, got one of num={len(rates)}: "
            "raise num, or narrow lr_min and lr_max"
        )
    return lower, good, int(np.argmax(is_lost))


def _check_that_something_learns(rates, falls, untrained_loss):
    """Raise if no rate lowers the loss."""
    if falls.max() > _MIN_FALL * abs(untrained_loss):
        return
    if not np.isfinite(falls).any():
        raise ValueError(
            f"lr_min must be a rate at which training is finite, got lr_min={rates[0]:.3g}: try "
            f"lr_min={rates[0] / 1000:.3g}"
        )
    # Rates that diverge next to rates that learn nothing leave a gap that the rates step over.
    is_lost = falls < -abs(untrained_loss)
    widen = "raise num, lower lr_min" if is_lost.any() else f"raise lr_max={rates[-1]:.3g}"
    raise ValueError(
        f"a rate must lower the training loss by {_MIN_FALL:.0%} at least, but none of "
        f"{len(rates)} does, from {rates[0]:.3g} to {rates[-1]:.3g}: {widen}, or raise n_epochs"
    )


def _grow(holds, start):
    """Return the first and the last position of the stretch around `start` in which all hold."""
    low = start
    while low > 0 and holds[low - 1]:
        low -= 1
    high = start
    while high < len(holds) - 1 and holds[high + 1]:
        high += 1
    return low, high
