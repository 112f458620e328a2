"""The fits of a call as the progress bar of its search counts them."""

from numbers import Integral, Real

import numpy as np


class CallProgress:
    """Counts the epochs of the fits of one call of a Parallel.

    A fit is planned with all of its epochs. One that ends early leaves the remaining ones out of
    the total. One that is trained alone after all counts once more, when it is done.

    Parameters
    ----------
    progress : SearchProgress
    """

    # workers tell of the epochs while they train
    counts_epochs = True

    def __init__(self, progress):
        self.progress = progress
        # of each fit, by its id: the epochs that are planned, and those that are done
        self.planned = {}
        self.done = {}
        # the scores of each candidate, by its number
        self.scores = {}

    def plan(self, fits):
        """Add the fits of the call to the bar."""
        for fit in fits:
            self.planned[id(fit)] = count_epochs(fit)
            self.done[id(fit)] = 0
        self.progress.plan(len(self.planned), sum(self.planned.values()), "epoch")

    def begin_group(self, fits):
        """Return a listener to the epochs of a group of fits."""
        return GroupProgress(self, fits)

    def count(self, fit, n_done, n_planned):
        """Set how many epochs of a fit are done, and planned; return by how much each changes."""
        name = id(fit)
        changes = n_done - self.done[name], n_planned - self.planned[name]
        self.done[name] = n_done
        self.planned[name] = n_planned
        return np.array(changes)

    def conclude(self, fit):
        """Count a fit whose task has run: all of it is done."""
        n_epochs = count_epochs(fit)
        if fit.result is not None:
            # one that another was trained for, or that was known, has not been counted yet
            n_known = len(fit.result.curve.get("epoch", ()))
            n_epochs = max(self.done[id(fit)], n_known)
        self.progress.change(*self.count(fit, n_epochs, n_epochs))

    def note_result(self, task, result):
        """Take note of the score that a task has returned."""
        note_result(self.progress, self.scores, task.progress, result)


class GroupProgress:
    """Listens to the epochs of one group.

    Parameters
    ----------
    call : CallProgress
    fits : list of Fit
    """

    def __init__(self, call, fits):
        self.call = call
        self.fits = fits
        self.alive = set(range(len(fits)))
        call.progress.change(n_alive=len(fits))

    def on_epoch(self, event):
        """Move the bar on."""
        loss = np.fmin.reduce(event.train_loss)
        done = event.done | event.stopped.keys()
        changes = np.zeros(2, int)
        for number in event.fits:
            fit = self.fits[number]
            n_planned = event.epoch if number in done else self.call.planned[id(fit)]
            changes += self.call.count(fit, event.epoch, n_planned)
        self.call.progress.change(*changes, -len(done), loss)
        self.alive -= done

    def end_group(self, has_failed):
        """Take back what was counted if the training has failed: it begins anew."""
        changes = np.zeros(2, int)
        if has_failed:
            for fit in self.fits:
                changes += self.call.count(fit, 0, count_epochs(fit))
        self.call.progress.change(*changes, -len(self.alive))


def note_result(progress, scores, places, result):
    """Tell the bar the mean score of a candidate, once it has been scored on all splits.

    Parameters
    ----------
    progress : SearchProgress
    scores : dict
        The scores of each candidate of the call so far, by its number.
    places : tuple of (tuple or None, tuple or None)
        See :attr:`sktune.bridge.seam.Task.progress`.
    result : object
        What the task has returned.
    """
    if progress.is_quiet:
        return
    if None in places or not isinstance(result, dict) or "test_scores" not in result:
        return
    (candidate, _), (_, n_splits) = places
    own = scores.setdefault(candidate, [])
    own.append(result["test_scores"])
    if len(own) == n_splits and all(isinstance(score, Real) for score in own):
        progress.note_score(float(np.mean(own)))
    elif len(own) == n_splits and all(isinstance(score, dict) for score in own):
        names = set.intersection(*(set(score) for score in own))
        progress.note_score({name: np.mean([score[name] for score in own]) for name in names})


def count_epochs(fit):
    """Return how many epochs a fit has; 1 if that is not known."""
    if fit.spec is not None:
        return fit.spec.n_epochs
    n_epochs = getattr(fit.net, "max_epochs", 1)
    return int(n_epochs) if isinstance(n_epochs, Integral) and n_epochs > 0 else 1
