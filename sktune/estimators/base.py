"""What the networks share of scikit-learn's face."""

from typing import NamedTuple

import numpy as np
import skorch
import torch
from sklearn.base import is_classifier
from skorch.dataset import Dataset
from skorch.utils import to_numpy
from torch import nn
from torch.utils.data import DataLoader

from sktune.checks.advice import warn_if_huge
from sktune.checks.arguments import own_arguments, takes_any_keyword
from sktune.checks.hyperparameters import (
    check_fit_params,
    check_hyperparameters,
    unchanged_on_error,
)
from sktune.checks.inputs import as_given, check_rows, warn_if_unscaled
from sktune.checks.targets import check_portion
from sktune.checks.weights import check_sample_weight, combine_weights, drop_weightless_rows
from sktune.estimators.fit_loop import Training
from sktune.estimators.overrides import find_override
from sktune.estimators.records import Records
from sktune.modules.mlp import MLP
from sktune.modules.reading import keeps_integers
from sktune.runtime.dtypes import floating_dtype, wide_dtype
from sktune.runtime.threads import few_threads, limited_threads
from sktune.training.lr_scaling import ScalesRates
from sktune.training.rows import Rows, cast_floating, public_dataset

_FEW_ROWS = 100


class Given(NamedTuple):
    """Data as the user gave them."""

    X: object
    y: object


class NetworkEstimator(ScalesRates, Records, Training):
    """What the networks share of scikit-learn's face."""

    def _assign(self, arguments):
        """Set the constructor's arguments, and do nothing else."""
        arguments |= arguments.pop("kwargs")
        given = {
            name: value for name, value in arguments.items() if name not in ("self", "__class__")
        }
        if "history" in given:
            # a property, as in skorch
            given["history_"] = given.pop("history")
        vars(self).update(given)
        unknown = {name for name in given.keys() - own_arguments(type(self)) if "__" not in name}
        if unknown - {"history_", "initialized_", "virtual_params_"}:
            # which fit will tell: a constructor does not complain
            self._unknown = unknown

    @property
    def _params_to_validate(self):  # skorch checks these names' prefixes
        return {name for name in vars(self) if "__" in name and not name.startswith("_")}

    def _get_param_names(self):  # scikit-learn asks for the names that get_params tells
        return sorted({*self._named_params(), *self._taken_by_keyword()})

    def _taken_by_keyword(self):
        """Return the attributes of a user's class that takes any keyword: some of them may be its arguments."""
        if not takes_any_keyword(type(self).__init__) or type(self).__module__.startswith(
            "sktune."
        ):
            return ()
        own = [name for name in vars(self) if not callable(getattr(type(self), name, None))]
        return [name for name in own if not (name.startswith("_") or name.endswith("_"))]

    def _named_params(self):
        """Return the parameters by name: what the constructors take or were given, and those of components.

        An attribute that a callback or its user has set on the net is none of them.
        """
        known = own_arguments(type(self)) | vars(self).get("_unknown", set())
        names = [name for name in vars(self) if name in known or "__" in name]
        return {
            name: vars(self)[name]
            for name in names
            if not name.startswith("_") and not name.endswith("_")
        }

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = tags.estimator_type == "regressor"
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = True
        return tags

    def __repr__(self, N_CHAR_MAX=700):
        return super(skorch.NeuralNet, self).__repr__(N_CHAR_MAX)

    def fit(self, X, y=None, sample_weight=None, **fit_params):
        """Fit the network to the rows of a table, and return self.

        Parameters
        ----------
        X : array-like, frame, sparse matrix or tensor of shape (n_rows, n_features) or (n_rows, ...)
            Numbers of any dtype. A dict of arrays, or a Dataset that holds its targets, is handed to skorch.
        y : array-like of shape (n_rows,) or, for regression, also (n_rows, n_outputs)
            A classifier also takes a table of 0 and 1, dense or sparse, a column for each label: under a binary
            criterion, and with the MLP under the default one unless each row has exactly one label.
        sample_weight : array-like of shape (n_rows,), default=None
            Factors on the rows' losses; only their ratios matter, and a row of weight 0 is as good as absent.
        **fit_params
            Handed to the module's ``forward``, as in skorch.

        Raises
        ------
        ValueError
            For data or hyperparameters that cannot be used. The estimator stays as it was.
        DivergenceError
            If the loss or the weights leave the finite numbers.
        """
        anew = not (self.warm_start and self.initialized_)
        return self._fit(X, y, sample_weight, anew=anew, fit_params=fit_params)

    def partial_fit(self, X, y=None, classes=None, sample_weight=None, **fit_params):
        """Go on training, for ``max_epochs`` more epochs; the first call initializes the network.

        Parameters
        ----------
        X, y, sample_weight, **fit_params
            See :meth:`fit`.
        classes : array-like, default=None
            All the labels that any call may bring; a classifier may need them, at its first call. Later calls may
            repeat them. The weights of a dict `class_weight` are factors on the losses as they are, so that a class
            weighs the same in each portion.

        Raises
        ------
        ValueError
            Also for other `classes` than those of the first call, and for ``class_weight="balanced"``.
        """
        options = {"classes": classes, "fit_params": fit_params, "method": "partial_fit"}
        return self._fit(X, y, sample_weight, anew=not self.initialized_, **options)

    def _fit(self, X, y, sample_weight, *, anew, fit_params, classes=None, method="fit"):
        if classes is None and self._hook.adopt(self, X, fit_params):
            return self
        # a net that was trimmed has no components left to check
        self.check_training_readiness()
        with unchanged_on_error(self):
            check_hyperparameters(self)
            check_fit_params(self, fit_params)
            # metadata that nobody has requested are refused before anything is read
            self._route(method, fit_params)
            brings_targets = y is None and self.iterator_train is not DataLoader
            passes_through = brings_targets or self._passes_through(X, y)
            prepare = self._pass_through if passes_through else self._read_table
            is_portion = method == "partial_fit"
            if is_portion and is_classifier(self):
                check_portion(self, classes)
            rows = prepare(X, y, sample_weight, anew, classes, is_portion)
            shown = public_dataset(rows[0])
            if not isinstance(rows[0], Rows):
                shown = Given(X, y)
            self._rebuild_outdated()
            # a callback's set_params takes effect at once
            self._is_fitting = True
            try:
                self.notify("on_train_begin", X=shown.X, y=shown.y)
                self._run_fit_loop(rows, method, fit_params)
                self.notify("on_train_end", X=X, y=y)
            finally:
                vars(self).pop("_is_fitting", None)
        return self

    def _run_fit_loop(self, rows, method, fit_params):
        try:
            self.fit_loop(*rows, _routing_method=method, **fit_params)
        except (
            KeyboardInterrupt
        ):  # how skorch's own callbacks stop a fit; otherwise the user means it
            if not self.callbacks:
                raise

    def _pass_through(self, X, y, sample_weight, anew, classes, is_portion):
        """Prepare skorch's own kinds of input; return the arguments of the fit loop."""
        weights = {
            "sample_weight": sample_weight,
            "class_weight": getattr(self, "class_weight", None),
        }
        for name, weight in weights.items():
            if weight is not None:
                raise ValueError(f"{name} must come with an array as X, got a dict or a Dataset")
        self._n_parts = len(X) if isinstance(X, list | tuple) else 0
        self._read_targets(X, y, anew, classes)
        if anew:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)
            self.initialize()
        return X, y

    def _read_table(self, X, y, sample_weight, anew, classes, is_portion):
        """Check a table, initialize the network for it, and return the arguments of the fit loop."""
        anew_shape = anew or not hasattr(self, "n_features_in_")
        self._n_parts, given = 0, X
        X, y = check_rows(self, X, y, reset=anew_shape, y_numeric=not is_classifier(self))
        # The classes follow from all of y, whatever the rows weigh.
        target = self._read_targets(X, y, anew, classes)
        X, y, sample_weight, target = check_sample_weight(X, y, sample_weight, target)
        weight = self._combine_weights(sample_weight, y, is_portion)
        X, y, weight, target = drop_weightless_rows(X, y, weight, target)
        if anew:
            self.initialize(n_features=int(np.prod(X.shape[1:])))
            # Sums of few rows are exact enough in float64 not to depend on the rows' order, nor on
            # whether a row is repeated or weighted; at that size the wider type costs nothing.
            if X.shape[0] < _FEW_ROWS and self._can_widen():
                self._widen()
            if not keeps_integers(X, self._whole_module()):
                warn_if_unscaled(X)
            if not is_classifier(self):
                warn_if_huge(target, self.criterion)
        given = None if self._hook.forgets_given_table else as_given(given, X)
        return (self._rows(X, y, target, weight, given),)

    def _can_widen(self):
        """Tell whether a fit may compute in float64: where nobody's own code or tensors would meet that type."""
        has_callbacks = self.callbacks not in (None, "disable", [])
        has_own_data = self.train_split or not self._has_standard_data()
        if find_override(self) or has_callbacks or has_own_data:
            return False
        is_own = type(self.module_) is MLP and type(self.criterion_).__module__.startswith(
            "torch.nn."
        )
        is_chosen = "dtype" in self.get_params_for("module")
        is_float32 = floating_dtype(self.module_) == torch.float32
        return is_own and is_float32 and not is_chosen and self.device_.type != "mps"

    def _has_standard_data(self):
        """Tell whether rows are batched by :class:`Batches`, and not by what the user has chosen."""
        is_standard = self.dataset is Dataset and not self.get_params_for("dataset")
        return is_standard and self.iterator_train is self.iterator_valid is DataLoader

    def _combine_weights(self, sample_weight, y, is_portion):
        """Return factors on the losses of rows from their weights and those of their classes, or None."""
        class_weight = getattr(self, "class_weight", None)
        classes = getattr(self, "classes_", None) if is_classifier(self) else None
        return combine_weights(sample_weight, class_weight, y, classes, is_portion)

    def _outputs(self, X):
        """Return the module's outputs for all rows, with the criterion's nonlinearity, as an array."""
        with limited_threads(1):
            known = self._hook.find_outputs(self, X)
        if known is not None:
            nonlinearity, batches = known
            threads = limited_threads(1)
        else:
            nonlinearity = self._get_predict_nonlinearity()
            batches = self.forward_iter(X, device="cpu")
            # a list is never long
            n_rows = getattr(X, "shape", (0,))[0]
            threads = few_threads(self._whole_module(), n_rows)
        outputs = []
        with threads:
            for output in batches:
                output = output[0] if isinstance(output, tuple) else output
                # NumPy has no bfloat16, and probabilities of float16 do not sum to 1
                output = cast_floating(output, wide_dtype(output.dtype))
                is_binary = is_classifier(self) and output.shape[1:] == (1,)
                outputs.append(to_numpy(nonlinearity(output[:, 0] if is_binary else output)))
        return np.concatenate(outputs)

    def _rows_asked(self, X):
        """Return X if predictions are of its rows; None while skorch's callbacks hand out what they have kept."""
        return None if "forward_iter" in vars(self) else X

    def _find_criterion(self):
        """Return the one criterion of an initialized net, not compiled; None where there is no such thing."""
        if len(self._criteria) != 1:
            return None
        criterion = getattr(self, self._criteria[0] + "_", None)
        return getattr(criterion, "_orig_mod", criterion)

    def _get_predict_nonlinearity(self):
        """Return what turns the module's outputs into predictions.

        Under a binary criterion these are the columns of two classes in skorch, and here one probability for each
        target of a regressor, and each label of a classifier of several.
        """
        if self.predict_nonlinearity != "auto" or not self._predicts_columns():
            return super()._get_predict_nonlinearity()
        criterion = self._find_criterion()
        if isinstance(criterion, nn.BCEWithLogitsLoss):
            return torch.sigmoid
        if isinstance(criterion, nn.BCELoss):
            return _as_they_are
        return super()._get_predict_nonlinearity()

    def _predicts_columns(self):
        """Tell whether a prediction is a number for each column of the targets."""
        return True

    def trim_for_prediction(self):
        """Drop what only training needs, as in skorch; predictions stay as they are."""
        self.predict_nonlinearity = (
            self._get_predict_nonlinearity()
        )  # which the criterion tells, that will be gone
        super().trim_for_prediction()


def _as_they_are(outputs):
    return outputs
