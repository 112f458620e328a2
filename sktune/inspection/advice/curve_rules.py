"""What the shapes of the learning curves of the chosen candidate tell."""

import numpy as np

from sktune.inspection.advice.finding import Finding
from sktune.inspection.records.shapes import (
    LEAST_EPOCHS,
    is_too_fast,
    is_too_slow,
    measure_rise,
    measure_steadiness,
    measure_swing,
)

# An exponential decay over three time constants has 6 % of its fall in the last quarter.
STILL_FALLING_SHARE = 0.06
# A loss at the end of so many times the first one has diverged although it is finite.
DIVERGED_TIMES = 3
# So large a share of diverged candidates wastes the search.
DIVERGED_SHARE = 0.3
# Fits that end before this share of max_epochs.
EARLY_SHARE = 0.25
# A validation loss that ends this share of its fall above its lowest, in the best candidate.
OVERFIT_SHARE = 0.25
# A validation loss of so many times the training loss, in the epoch of the lowest validation loss.
GAP_TIMES = 3
# Masters and Luschi (2018) find 2 to 32 best; below this the noise of the gradient is large.
SMALL_BATCH = 16
NOISE_SHARE = 0.03
BENGIO = "Bengio 2012, Practical recommendations for gradient-based training, section 3.1"


def find_lr_too_small(context):
    """Look for a loss that falls steadily up to the last epoch, as with all larger rates."""
    if not _ends_at_max_epochs(context) or not is_too_slow(context.curves, context.best):
        return None
    share = measure_steadiness(context.curves, context.best)
    lr = context.value_of("lr")
    return Finding(
        code="lr-too-small",
        severity="warning",
        title="The learning rate is too small",
        text=f"With lr={_number(lr)}, {share:.0%} of the fall of the training loss is in the last "
        "quarter of the epochs; a straight line has 25%.",
        action="Try rates up to 10 times as large, or more epochs.",
        reference=BENGIO,
        numbers={"lr": lr, "share_in_last_quarter": share},
    )


def find_still_improving(context):
    """Look for a loss that still falls when max_epochs ends the training."""
    if not _ends_at_max_epochs(context):
        return None
    share = measure_steadiness(context.curves, context.best)
    if share < STILL_FALLING_SHARE or is_too_slow(context.curves, context.best):
        # of the second, find_lr_too_small tells
        return None
    max_epochs = context.value_of("max_epochs")
    return Finding(
        code="still-improving",
        severity="warning",
        title="The training ends too soon",
        text=f"At max_epochs={max_epochs} the loss is still falling: {share:.0%} of its fall is in "
        "the last quarter of the epochs.",
        action="Raise max_epochs, with early_stopping=True.",
        reference=BENGIO,
        numbers={"max_epochs": max_epochs, "share_in_last_quarter": share},
    )


def find_lr_too_large(context):
    """Look for a training loss that swings or rises."""
    losses = context.curves_of_best("train_loss")
    if not is_too_fast(losses):
        return None
    swing = measure_swing(losses)
    rise = measure_rise(losses)
    lr = context.value_of("lr")
    return Finding(
        code="lr-too-large",
        severity="warning",
        title="The learning rate is too large",
        text=f"With lr={_number(lr)}, the training loss rises by {swing:.0%} of its fall from "
        f"epoch to epoch, and ends {rise:.0%} of its fall above its lowest.",
        action="Try rates down to a tenth, or a decaying lr_schedule.",
        reference=BENGIO,
        numbers={"lr": lr, "swing": swing, "rise": rise},
    )


def find_diverged(context):
    """Find which candidates have diverged, and at what rates."""
    is_diverged = list_diverged(context.curves)
    if not is_diverged.any():
        return None
    count, n_recorded = int(is_diverged.sum()), int(context.curves.is_recorded.sum())
    which = np.flatnonzero(is_diverged)
    rates = _rates_of(context, which)
    severity = "note"
    if count >= DIVERGED_SHARE * n_recorded:
        severity = "warning"
    if context.best in which:
        severity = "problem"
    at = f", at learning rates from {min(rates):.3g} to {max(rates):.3g}" if rates else ""
    return Finding(
        code="diverged",
        severity=severity,
        title="Training diverged",
        text=f"{count} of {n_recorded} candidates have diverged{at}.",
        action="Lower the upper end of the learning rates, or clip the gradients.",
        reference=BENGIO,
        numbers={"candidates": which.tolist(), "rates": rates},
    )


def find_stopped_early(context):
    """Look for fits of the chosen candidate that all ended long before max_epochs."""
    max_epochs = context.value_of("max_epochs")
    epochs = [len(losses) for losses in context.curves_of_best("train_loss")]
    if not epochs or not isinstance(max_epochs, int) or max(epochs) > EARLY_SHARE * max_epochs:
        return None
    return Finding(
        code="stopped-early",
        severity="note",
        title="Training stops long before max_epochs",
        text=f"The fits of the best candidate end after {min(epochs)} to {max(epochs)} epochs of "
        f"max_epochs={max_epochs}.",
        action="Lower max_epochs, or use schedules that do not depend on it.",
        numbers={"epochs": epochs, "max_epochs": max_epochs},
    )


def find_rising_validation_loss(context):
    """Look for a validation loss that rises in late epochs of the chosen candidate."""
    if context.value_of("early_stopping") is True:
        # the weights of the best epoch are restored
        return None
    rises = []
    for losses in context.curves_of_best("valid_loss"):
        fall = losses[0] - losses.min()
        if len(losses) >= LEAST_EPOCHS and fall > 0:
            rises.append((losses[-1] - losses.min()) / fall)
    if not rises or np.median(rises) < OVERFIT_SHARE:
        return None
    rise = float(np.median(rises))
    return Finding(
        code="overfits-late",
        severity="warning",
        title="The network overfits in late epochs",
        text=f"The validation loss ends {rise:.0%} of its fall above its lowest.",
        action="Use early_stopping=True, more weight decay or dropout, or more data.",
        reference="Prechelt 1998, Early stopping - but when?",
        numbers={"rise": rise},
    )


def find_loss_gap(context):
    """Look for a validation loss far above the training loss in the best epoch.

    Dropout raises training losses, so that the true gap is larger.
    """
    pairs = zip(
        context.curves_of_best("train_loss"), context.curves_of_best("valid_loss"), strict=False
    )
    found = []
    for train, valid in pairs:
        best = int(valid.argmin())
        if len(train) == len(valid) >= LEAST_EPOCHS and train[best] > 0:
            found.append((valid[best] / train[best], train[best], valid[best]))
    if not found:
        return None
    times, train_loss, valid_loss = np.median(found, axis=0).tolist()
    if times < GAP_TIMES:
        return None
    return Finding(
        code="loss-gap",
        severity="note",
        title="The losses of training and validation are far apart",
        text=f"In the epoch of the lowest validation loss, that is {valid_loss:.3g}, and the "
        f"training loss {train_loss:.3g}.",
        action="Try more weight decay λ or dropout, a smaller model, or more data.",
        reference="Goodfellow et al. 2016, Deep learning, section 5.2",
        numbers={"train_loss": train_loss, "valid_loss": valid_loss, "times": times},
    )


def find_noisy_batches(context):
    """Look for a training loss that is noisy at a small batch size."""
    batch_size = context.value_of("batch_size")
    if not isinstance(batch_size, int) or not 0 < batch_size < SMALL_BATCH:
        return None
    noises = []
    for losses in context.curves_of_best("train_loss"):
        fall = losses[0] - losses.min()
        if len(losses) >= LEAST_EPOCHS and fall > 0:
            noises.append(np.abs(np.diff(losses[len(losses) // 2 :], n=2)).mean() / fall)
    if not noises or np.median(noises) < NOISE_SHARE:
        return None
    noise = float(np.median(noises))
    return Finding(
        code="noisy-batches",
        severity="note",
        title="Small batches make the loss noisy",
        text=f"With batch_size={batch_size}, the training loss bends by {noise:.0%} of its fall "
        "from epoch to epoch.",
        action="Try larger batches, or a decaying lr_schedule.",
        reference="Masters and Luschi 2018, Revisiting small batch training",
        numbers={"batch_size": batch_size, "noise": noise},
    )


def list_diverged(curves):
    """Return which candidates have a fit that diverged: a bool ndarray of shape (n_candidates,)."""
    loss = curves.train_loss
    is_there = np.arange(loss.shape[2]) < curves.n_epochs[:, :, np.newaxis]
    is_diverged = (is_there & ~np.isfinite(loss)).any(axis=(1, 2))
    if loss.shape[2] == 0:
        return is_diverged
    last = np.maximum(curves.n_epochs - 1, 0)[:, :, np.newaxis]
    ends = np.take_along_axis(loss, last, axis=2)[:, :, 0]
    with np.errstate(invalid="ignore"):
        has_grown = (loss[:, :, 0] > 0) & (ends > DIVERGED_TIMES * loss[:, :, 0])
    return is_diverged | has_grown.any(axis=1)


def _ends_at_max_epochs(context):
    """Tell whether fits of the chosen candidate were trained for max_epochs."""
    max_epochs = context.value_of("max_epochs")
    losses = context.curves_of_best("train_loss")
    return bool(losses) and max_epochs is not None and len(losses[0]) >= max_epochs


def _rates_of(context, which):
    """Return the learning rates of some candidates, without those that are not known."""
    tuned = context.find_tuned("lr")
    if tuned is not None and tuned.is_number:
        return [float(rate) for rate in tuned.numbers[which] if np.isfinite(rate)]
    lr = context.value_of("lr")
    return [] if lr is None else [float(lr)]


def _number(value):
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)
