"""What scikit-learn's MLPClassifier and MLPRegressor tell of a fit, read from the history."""

from sklearn.base import is_classifier


class recorded:
    """An attribute of a fitted net that a function reads from its history.

    One that is set on the net hides it. Before the fit there is no such attribute.
    """

    def __init__(self, read):
        self.read, self.__doc__ = read, read.__doc__

    def __get__(self, net, kind=None):
        if net is None:
            return self
        if not getattr(net, "history_", None):
            name = self.read.__name__
            raise AttributeError(f"{kind.__name__} has {name} only after fit")
        return self.read(net)


class Records:
    """The attributes; they hold for nets of a fused search and for loaded histories, too."""

    @recorded
    def n_iter_(self):
        """Return the number of epochs, with those that ``warm_start`` goes on from."""
        return len(self.history_)

    @recorded
    def loss_curve_(self):
        """Return the mean training loss of each epoch: a list of float."""
        return self._read_column("train_loss")

    @recorded
    def best_loss_(self):
        """Return the least of ``loss_curve_``; None where rows were held out."""
        losses = self._read_column("train_loss")
        return None if self.validation_scores_ is not None or None in losses else min(losses)

    @recorded
    def validation_scores_(self):
        """Return the score of each epoch on the rows held out; None where there are none.

        It is a classifier's accuracy, as far as skorch's callback records it, else the loss with
        its sign changed.
        """
        losses = self._read_column("valid_loss")
        if None in losses:
            return None
        accuracies = self._read_column("valid_acc") if is_classifier(self) else [None]
        return [-loss for loss in losses] if None in accuracies else accuracies

    @recorded
    def best_validation_score_(self):
        """Return the best of ``validation_scores_``, or None."""
        scores = self.validation_scores_
        return None if scores is None else max(scores)

    def _read_column(self, name):
        """Return a number of each epoch: its record, else the mean over its batches, or None."""
        fused = vars(self).get("_curve", [])
        column = []
        for epoch, row in enumerate(self.history_):
            value = row.get(name)
            if value is None and name.endswith("_loss"):
                value = _average(row["batches"], name)
            if value is None and epoch < len(fused):
                value = fused[epoch].get(name)
            column.append(value)
        return column


def _average(batches, name):
    """Return the mean of the batches' losses over the rows, or None if there are none."""
    size = name.replace("_loss", "_batch_size")
    found = [(batch[name], batch[size]) for batch in batches if name in batch]
    n_rows = sum(n for _, n in found)
    return sum(loss * n for loss, n in found) / n_rows if n_rows else None
