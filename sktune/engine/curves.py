"""The learning curves of many fits, in columns of numbers."""

import numpy as np

_NUMBERS = ("train_loss", "lr", "valid_loss")
_NO_NUMBER = -1  # of a candidate or split that the task does not tell


class Curves:
    """What each epoch of each fused fit recorded; as a sequence, a dict per epoch.

    The fits stand one behind the other, each with its epochs from 1. What is the same in all epochs of a fit (candidate
    and split) is kept once per fit. Losses and learning rates are exact; a fit without validation rows has no
    ``valid_loss``.

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
        self._places = np.zeros((0, 3), np.int32)  # of each fit: candidate, split, number of epochs
        self._numbers = {name: np.zeros(0) for name in _NUMBERS}
        self._waiting = []

    def add(self, candidate, split, columns):
        """Append a fit's epochs: a dict of lists, of which those named in the columns are kept."""
        n_epochs = len(columns.get("train_loss", ()))
        missing = np.full(n_epochs, np.nan)
        numbers = {name: np.array(columns.get(name, missing), np.float64) for name in _NUMBERS}
        place = [_NO_NUMBER if number is None else number for number in (candidate, split)]
        self._waiting.append(([*place, n_epochs], numbers))

    def _join(self):
        """Put what was added since the last time behind the rest."""
        if not self._waiting:
            return
        places = [place for place, _ in self._waiting]
        self._places = np.concatenate([self._places, np.array(places, np.int32)])
        for name in _NUMBERS:
            added = [numbers[name] for _, numbers in self._waiting]
            self._numbers[name] = np.concatenate([self._numbers[name], *added])
        self._waiting = []

    @property
    def columns(self):
        """The columns, as a dict of arrays (n_rows,): candidate, split, epoch, train_loss, lr and maybe valid_loss."""
        self._join()
        n_epochs = self._places[:, 2]
        found = {}
        for name, of_fits in zip(("candidate", "split"), self._places.T, strict=False):
            found[name] = np.repeat(of_fits.astype(np.int64), n_epochs)
        begins = np.repeat(np.cumsum(n_epochs) - n_epochs, n_epochs)
        found["epoch"] = np.arange(len(begins)) - begins + 1
        found |= self._numbers
        if np.isnan(found["valid_loss"]).all():
            del found["valid_loss"]
        return found

    def __len__(self):
        self._join()
        return len(self._numbers["lr"])

    def __iter__(self):
        columns = {name: values.tolist() for name, values in self.columns.items()}
        for numbers in zip(*columns.values(), strict=True):
            yield _as_row(dict(zip(columns, numbers, strict=True)))

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
        return f"Curves(n_fits={len(self._places) + len(self._waiting)}, n_rows={len(self)})"

    def __getstate__(self):
        self._join()
        state = dict(vars(self))
        numbers = state["_numbers"] = dict(self._numbers)
        if np.isnan(numbers["valid_loss"]).all():
            del numbers["valid_loss"]
        n_epochs = self._places[:, 2]
        is_told = bool(n_epochs.all())
        of_fits = numbers["lr"][np.cumsum(n_epochs) - n_epochs] if is_told else numbers["lr"]
        # Most fits have the same rate in all epochs: it is kept once for each.
        if is_told and np.array_equal(np.repeat(of_fits, n_epochs), numbers["lr"]):
            numbers["lr"] = of_fits
        return state

    def __setstate__(self, state):
        vars(self).update(state)
        self._numbers = dict(self._numbers)
        n_epochs = self._places[:, 2]
        if len(self._numbers["lr"]) < n_epochs.sum():
            self._numbers["lr"] = np.repeat(self._numbers["lr"], n_epochs)
        self._numbers.setdefault("valid_loss", np.full(len(self._numbers["lr"]), np.nan))


def _as_row(row):
    """Return an epoch's row: without a validation loss that is none, None for a number that is not known."""
    for name in ("candidate", "split"):
        row[name] = None if row[name] == _NO_NUMBER else row[name]
    if np.isnan(row.get("valid_loss", 0.0)):
        del row["valid_loss"]
    return row
