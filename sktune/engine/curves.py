"""The learning curves of many fits, column by column."""

import numpy as np

# What is recorded in each epoch.
_COLUMNS = ("train_loss", "lr", "valid_loss")
# Stands for a candidate or a split that is not known.
_UNKNOWN = -1


class Curves:
    """What each epoch of each fused fit recorded; as a sequence, a dict per epoch.

    The fits follow one another, each with its epochs from 1. Candidate and split, which are the
    same in all epochs of a fit, are kept once per fit. Losses and learning rates are exact; a fit
    without validation rows has no ``valid_loss``.

    Examples
    --------
    >>> curves = Curves()
    >>> curves.add(0, 2, {"epoch": [1, 2], "train_loss": [0.5, 0.25], "lr": [0.1, 0.1]})
    >>> len(curves), curves[1]
    (2, {'candidate': 0, 'split': 2, 'epoch': 2, 'train_loss': 0.25, 'lr': 0.1})
    >>> curves.columns["train_loss"].tolist()
    [0.5, 0.25]
    """

    def __init__(self):
        # Of each fit: candidate, split, number of epochs.
        self._fits = np.zeros((0, 3), np.int32)
        self._values = {name: np.zeros(0) for name in _COLUMNS}
        # The fits that were added since the arrays were joined, each as (row of _fits, columns).
        self._added = []

    def add(self, candidate, split, columns):
        """Append the epochs of a fit.

        Parameters
        ----------
        candidate, split : int or None
            None if it is not known.
        columns : dict of list
            Of these, ``train_loss``, ``lr`` and ``valid_loss`` are kept.
        """
        n_epochs = len(columns.get("train_loss", ()))
        missing = np.full(n_epochs, np.nan)
        values = {name: np.array(columns.get(name, missing), np.float64) for name in _COLUMNS}
        fit = [_UNKNOWN if index is None else index for index in (candidate, split)]
        self._added.append(([*fit, n_epochs], values))

    def _join(self):
        """Append to the arrays what was added since the last time."""
        if not self._added:
            return
        fits = [fit for fit, _ in self._added]
        self._fits = np.concatenate([self._fits, np.array(fits, np.int32)])
        for name in _COLUMNS:
            added = [values[name] for _, values in self._added]
            self._values[name] = np.concatenate([self._values[name], *added])
        self._added = []

    @property
    def columns(self):
        """The columns, as a dict of arrays (n_rows,), a row for each epoch of each fit.

        They are candidate, split, epoch, train_loss and lr, and valid_loss if any fit has one.
        """
        self._join()
        candidates, splits, n_epochs = self._fits.T
        found = {
            "candidate": np.repeat(candidates.astype(np.int64), n_epochs),
            "split": np.repeat(splits.astype(np.int64), n_epochs),
        }
        first_rows = np.repeat(self._find_first_rows(), n_epochs)
        found["epoch"] = np.arange(len(first_rows)) - first_rows + 1
        found |= self._values
        if np.isnan(found["valid_loss"]).all():
            del found["valid_loss"]
        return found

    def _find_first_rows(self):
        """Return the row of the first epoch of each fit."""
        n_epochs = self._fits[:, 2]
        return np.cumsum(n_epochs) - n_epochs

    def __len__(self):
        self._join()
        return len(self._values["lr"])

    def __iter__(self):
        columns = {name: values.tolist() for name, values in self.columns.items()}
        for row in zip(*columns.values(), strict=True):
            yield _as_row(dict(zip(columns, row, strict=True)))

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        return _as_row({name: values[index].item() for name, values in self.columns.items()})

    def __eq__(self, other):
        if not isinstance(other, Curves):
            return NotImplemented
        return str(list(self)) == str(list(other))

    __hash__ = None

    def __repr__(self):
        return f"Curves(n_fits={len(self._fits) + len(self._added)}, n_rows={len(self)})"

    def __getstate__(self):
        self._join()
        state = dict(vars(self))
        values = dict(self._values)
        state["_values"] = values
        if np.isnan(values["valid_loss"]).all():
            del values["valid_loss"]
        n_epochs = self._fits[:, 2]
        if n_epochs.all():
            # Most fits have the same rate in all epochs: it is kept once for each fit.
            first_rates = values["lr"][self._find_first_rows()]
            if np.array_equal(np.repeat(first_rates, n_epochs), values["lr"]):
                values["lr"] = first_rates
        return state

    def __setstate__(self, state):
        vars(self).update(state)
        self._values = dict(self._values)
        n_epochs = self._fits[:, 2]
        if len(self._values["lr"]) < n_epochs.sum():
            self._values["lr"] = np.repeat(self._values["lr"], n_epochs)
        self._values.setdefault("valid_loss", np.full(len(self._values["lr"]), np.nan))


def _as_row(row):
    """Return the row of an epoch as a user reads it.

    A candidate or split that is not known is None, and a validation loss that is missing is left
    out.
    """
    for name in ("candidate", "split"):
        if row[name] == _UNKNOWN:
            row[name] = None
    if np.isnan(row.get("valid_loss", 0.0)):
        del row["valid_loss"]
    return row
