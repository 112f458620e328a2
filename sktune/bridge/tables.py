"""The tables of a search, each kept once for all fits that take rows of it."""

from copy import copy

import numpy as np
import torch
from scipy import sparse

from sktune.engine.digest import digest
from sktune.engine.specs import RowSet
from sktune.modules.reading import keeps_integers
from sktune.runtime.dtypes import floating_dtype
from sktune.training.rows import rows_of


class Tables:
    """Tables as modules take them: the whole of X, of which folds take rows, or one for a fold.

    Attributes
    ----------
    by_name : dict of Rows
        What specs name: the name is the digest of the contents.
    """

    def __init__(self):
        self.by_name = {}
        self._whole = {}
        self._of_fold = {}
        self._digests = {}
        self._row_sets = {}

    def convert(self, net, fold, planned, X):
        """Return the checked rows X of a fit as `net` takes them.

        `planned` tells the whole table that X are rows of, and `fold` which rows these are; without
        a whole table `planned` is None. Rows of a whole table are not gathered: what is returned
        has their shape, and the converted table as its attribute ``whole``.
        """
        dtypes = (X.dtype, floating_dtype(net.module_), keeps_integers(X, net.module_))
        # rows of weight zero are left out
        is_complete = planned is not None and len(planned.train) == X.shape[0]
        if is_complete:
            key = (id(planned.whole), net.device_, *dtypes)
            if key not in self._whole:
                self._whole[key] = _convert_whole(net, planned.whole, X)
            whole = self._whole[key]
            if whole is not None:
                substitute = whole[:1].expand(X.shape)
                substitute.whole = whole
                return substitute
        # rows whose class has no weight are left out as well
        class_weight = repr(getattr(net, "class_weight", None))
        key = (fold, X.shape, class_weight, net.device_, *dtypes)
        if key not in self._of_fold:
            self._of_fold[key] = type(net)._convert_table(net, X)
        return self._of_fold[key]

    def add(self, rows, train=None):
        """Keep a table; return its name, and where its rows stand: None if they are where they were.

        `rows` may be some rows of a whole table, `train` of it: then the whole one is kept.
        """
        whole = getattr(rows.X, "whole", None)
        positions = None
        if whole is not None:
            positions = torch.as_tensor(train)
            rows = copy(rows)
            rows.X = whole
            rows.target = _spread(rows.target, positions, whole)
            rows.weight = _spread(rows.weight, positions, whole)
        contents = (self._digest(rows.X), rows.target, rows.weight, rows.dtype)
        name = digest((contents, str(rows.device)))
        self.by_name.setdefault(name, rows)
        return name, positions

    def _digest(self, X):
        """Return the digest of a tensor or a sparse table that many folds share."""
        if sparse.issparse(X):
            return digest(X)
        key = (X.data_ptr(), X.shape, X.stride(), X.dtype, X.device)
        if key not in self._digests:
            # the tensor is kept so that no other one gets its place in memory
            self._digests[key] = (digest(X), X)
        return self._digests[key][0]

    def find_row_set(self, name, positions, train, valid=None, **others):
        """Return the rows that a fit takes of a table; equal ones are one object.

        `train` and `valid` are the datasets of the fit, whose rows stand at `positions` of the
        table. For the others see :class:`RowSet`.
        """
        indices = [_place(part, positions) for part in (train, valid)]
        test = others.get("test")
        key = (name, *(None if part is None else digest(part) for part in (*indices, test)))
        key = (*key, valid is None, *sorted((k, v) for k, v in others.items() if k != "test"))
        if key not in self._row_sets:
            self._row_sets[key] = RowSet(
                table=name, n_train=len(train), train=indices[0], valid=indices[1], **others
            )
        return self._row_sets[key]


def _place(dataset, positions):
    """Return the rows of the table that a dataset takes; None is all of them, or no dataset."""
    if dataset is None:
        return None
    _, indices = rows_of(dataset)
    if positions is None:
        return indices
    return positions if indices is None else positions[indices]


def _convert_whole(net, whole, X):
    """Return a whole table as `net` takes it.

    Return None if it is of another type than its rows X, or holds more than numbers.
    """
    array = np.asarray(whole)
    is_alike = array.dtype == X.dtype and array.shape[1:] == X.shape[1:]
    if sparse.issparse(X) or not is_alike:
        return None
    try:
        return type(net)._convert_table(net, array)
    except ValueError:
        # of rows that no fit has asked for
        return None


def _spread(part, positions, whole):
    """Put numbers of some rows where these rows stand in the whole table, and 0 elsewhere."""
    if part is None:
        return None
    spread = part.new_zeros(len(whole), *part.shape[1:])
    spread[positions.to(part.device)] = part
    return spread
