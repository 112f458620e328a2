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


class WholeTables:
    """Whole tables as modules take them, and their digests; kept over the calls of one search."""

    def __init__(self):
        # of each table of the user's and type: that table, and the converted one or None
        self.converted = {}
        # digests of tensors, by where these are in memory
        self.digests = {}


class Tables:
    """Tables as modules take them: all rows of X, shared by the folds, or the rows of one fold.

    Attributes
    ----------
    by_name : dict of Rows
        The tables by the names that specs have for them: the digests of their contents.

    Parameters
    ----------
    whole : WholeTables or None, default=None
        What earlier calls of the search have converted.
    """

    def __init__(self, whole=None):
        self.by_name = {}
        self._whole = WholeTables() if whole is None else whole
        # converted tables of the rows of one fold
        self._of_fold = {}
        # digests of their tensors
        self._digests = {}
        self._row_sets = {}

    def convert(self, net, fold, planned, X):
        """Return the checked rows of a fit as `net` takes them.

        Rows of a whole table are not gathered: the returned tensor has their shape, and the whole
        converted table as its attribute ``whole``.

        Parameters
        ----------
        net : NetworkEstimator
        fold : object
            A key that is equal for the same rows.
        planned : PlannedFit or None
            It has the whole table; None if there is none.
        X : ndarray or sparse matrix
            The rows.
        """
        dtypes = (X.dtype, floating_dtype(net.module_), keeps_integers(X, net.module_))
        # rows of weight zero are left out
        is_complete = planned is not None and len(planned.train) == X.shape[0]
        if is_complete:
            key = (id(planned.whole), net.device_, *dtypes)
            converted = self._whole.converted
            if key not in converted:
                # the table is kept so that no other one gets its id
                converted[key] = (planned.whole, _convert_whole(net, planned.whole, X))
            _, whole = converted[key]
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
        """Keep a table; return its name and the positions of `rows` in it.

        Parameters
        ----------
        rows : Rows
            A table, or rows of a whole table: then the whole one is kept.
        train : ndarray, default=None
            The numbers of `rows` in a whole table.

        Returns
        -------
        name : str
        positions : LongTensor or None
            None if `rows` are the kept table.
        """
        whole = getattr(rows.X, "whole", None)
        positions = None
        if whole is not None:
            positions = torch.as_tensor(train)
            rows = copy(rows)
            rows.X = whole
            rows.target = _spread(rows.target, positions, whole)
            rows.weight = _spread(rows.weight, positions, whole)
        digests = self._digests if whole is None else self._whole.digests
        contents = (_digest_table(rows.X, digests), rows.target, rows.weight, rows.dtype)
        name = digest((contents, str(rows.device)))
        self.by_name.setdefault(name, rows)
        return name, positions

    def find_row_set(self, name, positions, train, valid=None, **others):
        """Return the rows that a fit takes of a table; equal ones are one object.

        Parameters
        ----------
        name : str
            That of the table.
        positions : LongTensor or None
            Where the rows of the fit stand in the table; None if they are the table.
        train : Dataset
            The training rows of the fit.
        valid : Dataset, default=None
            Its validation rows.
        **others
            The other arguments of :class:`RowSet`.
        """
        train_indices = _find_indices(train, positions)
        valid_indices = _find_indices(valid, positions)
        parts = (train_indices, valid_indices, others.get("test"))
        digests = [None if part is None else digest(part) for part in parts]
        numbers = sorted((key, value) for key, value in others.items() if key != "test")
        # None of `valid_indices` may be all rows as well as no validation
        key = (name, *digests, valid is None, *numbers)
        if key not in self._row_sets:
            self._row_sets[key] = RowSet(
                table=name,
                n_train=len(train),
                train=train_indices,
                valid=valid_indices,
                **others,
            )
        return self._row_sets[key]


def _digest_table(X, digests):
    """Return the digest of a tensor or a sparse table; those of tensors are kept in `digests`."""
    if sparse.issparse(X):
        return digest(X)
    key = (X.data_ptr(), X.shape, X.stride(), X.dtype, X.device)
    if key not in digests:
        # the tensor is kept so that no other one is put at its place in memory
        digests[key] = (digest(X), X)
    return digests[key][0]


def _find_indices(dataset, positions):
    """Return which rows of a table a dataset takes; None is all of them, or no dataset."""
    if dataset is None:
        return None
    _, indices = rows_of(dataset)
    if positions is None:
        return indices
    return positions if indices is None else positions[indices]


def _convert_whole(net, whole, X):
    """Return a whole table as `net` takes it.

    Return None if it is of another type than its rows X, or does not hold finite numbers only.
    """
    array = np.asarray(whole)
    is_alike = array.dtype == X.dtype and array.shape[1:] == X.shape[1:]
    if sparse.issparse(X) or not is_alike:
        return None
    try:
        return type(net)._convert_table(net, array)
    except ValueError:
        # raised for rows that are not in X
        return None


def _spread(part, positions, whole):
    """Return numbers of all rows of a table: those of `part` at `positions`, and 0 elsewhere."""
    if part is None:
        return None
    spread = part.new_zeros(len(whole), *part.shape[1:])
    spread[positions.to(part.device)] = part
    return spread
