"""The rows of fits, kept once for all that take the same ones."""

from copy import copy

import numpy as np
import torch
from scipy import sparse
from torch.utils.data import Subset

from sktune.modules.reading import keeps_integers
from sktune.runtime.dtypes import floating_dtype
from sktune.training.rows import rows_of


class Tables:
    """Tables as nets take them: the whole of X, of which folds take rows, or else a table per fold."""

    def __init__(self):
        self.whole, self.of_fold, self.rows = {}, {}, {}

    def convert(self, net, fold, planned, X):
        """Return the checked rows X of a fit as `net` takes them; those of the whole table only stand for themselves.

        `planned` tells the whole table; it is None where each fold has its own.
        """
        kind = (X.dtype, net.device_, floating_dtype(net.module_), keeps_integers(X, net.module_))
        if (
            planned is not None and len(planned.train) == X.shape[0]
        ):  # rows of weight zero are left out
            key = (id(planned.whole), *kind)
            if key not in self.whole:
                self.whole[key] = _convert_whole(net, planned.whole, X)
            if self.whole[key] is not None:
                stand_in = self.whole[key][:1].expand(X.shape)
                stand_in.whole = self.whole[key]
                return stand_in
        # Rows whose class weighs nothing are left out as well.
        key = (fold, X.shape, repr(getattr(net, "class_weight", None)), *kind)
        if key not in self.of_fold:
            self.of_fold[key] = type(net)._convert_table(net, X)
        return self.of_fold[key]

    def share(self, rows, train):
        """Return a function that puts datasets on `rows`, at `train` of the whole table, onto rows that all share."""
        whole, at = getattr(rows.X, "whole", None), None
        if whole is not None:
            rows, at = copy(rows), torch.as_tensor(train)
            rows.X, rows.target, rows.weight = (
                whole,
                *(_spread(part, at, whole) for part in (rows.target, rows.weight)),
            )
        others = self.rows.setdefault((rows.X.data_ptr(), rows.X.shape, rows.X.dtype), [])
        shared = next((other for other in others if _equal(rows, other)), rows)
        others += [rows] if shared is rows else []

        def place(dataset):
            _, indices = rows_of(dataset)
            picked = at if indices is None else indices if at is None else at[indices]
            return shared if picked is None else Subset(shared, picked)

        return place


def _convert_whole(net, whole, X):
    """Return the whole table as `net` takes it, or None if it is of another type than its rows, or not all numbers."""
    array = np.asarray(whole)
    if sparse.issparse(X) or array.dtype != X.dtype or array.shape[1:] != X.shape[1:]:
        return None
    try:
        return type(net)._convert_table(net, array)
    except ValueError:  # rows that no fit has asked for may not do
        return None


def _spread(part, at, whole):
    """Put the numbers of some rows where they are in the whole table."""
    if part is not None:
        spread = part.new_zeros(len(whole), *part.shape[1:])
        spread[at.to(part.device)] = part
        return spread
    return None


def _equal(one, other):
    pairs = [(one.target, other.target), (one.weight, other.weight)]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
