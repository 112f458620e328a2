"""What the networks share: parameters, ``fit`` and ``partial_fit``, and outputs for rows."""

from typing import NamedTuple

import numpy as np
import skorch
import torch
from sklearn.base import is_classifier
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
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
from sktune.estimators.callbacks.seam import CallbackSupport
from sktune.estimators.callbacks.tasks import told_fit
from sktune.estimators.fit_loop import Training
from sktune.estimators.overrides import find_override, has_own_callbacks, is_replaced
from sktune.estimators.records import Records
from sktune.modules.mlp import MLP
from sktune.modules.reading import has_embedding
from sktune.modules.work import few_threads
from sktune.runtime.diagrams.notebooks import ShowsSummary
from sktune.runtime.dtypes import floating_dtype, wide_dtype
from sktune.runtime.threads import limited_threads
from sktune.runtime.versions import RemembersVersions
from sktune.training.rates import ScalesRates
from sktune.training.rows import Rows, cast_floating, public_dataset

_FEW_ROWS = 100


class Given(NamedTuple):
    """Data as the user gave them."""

    X: object
    y: object


class NetworkEstimator(
    RemembersVersions, ShowsSummary, CallbackSupport, ScalesRates, Records, Training
):
    """The base class of the networks, scikit-learn estimators that train as skorch does."""

    _packages = ("sktune", "torch", "skorch")

    def _assign(self, arguments):
        """Set the constructor's arguments, which are its ``locals()``, and do nothing else."""
        given = dict(arguments)
        given.update(given.pop("kwargs"))
        for name in ("self", "__class__"):
            given.pop(name, None)
        if "history" in given:
            # `history` is a property, as in skorch.
            given["history_"] = given.pop("history")
        vars(self).update(given)
        unknown = {name for name in given.keys() - own_arguments(type(self)) if "__" not in name}
        if unknown - {"history_", "initialized_", "virtual_params_"}:
            # `fit` raises for them: a constructor does not.
            self._unknown = unknown

    @property
    def _params_to_validate(self):
        # skorch checks the prefixes of these names.
        return {name for name in vars(self) if "__" in name and not name.startswith("_")}

    def _get_param_names(self):
        # scikit-learn asks for the names that `get_params` returns.
        return sorted({*self._named_params(), *self._taken_by_keyword()})

    def _taken_by_keyword(self):
        """Return the names of what a subclass's constructor may have taken as a keyword.

        If it takes any keyword, this is every public attribute of the net.
        """
        is_own_class = not type(self).__module__.startswith("sktune.")
        if not is_own_class or not takes_any_keyword(type(self).__init__):
            return ()
        own = [name for name in vars(self) if not callable(getattr(type(self), name, None))]
        return [name for name in own if not (name.startswith("_") or name.endswith("_"))]

    def _named_params(self):
        """Return the parameters by name: arguments of the constructors, and those of components.

        Attributes that a callback or the user has set on the net are left out.
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

    def get_metadata_routing(self):
        """Return the routing of metadata: what ``fit`` takes, and groups for ``train_split``.

        It is that of skorch from 1.4 on, also where an older skorch is installed.

        Returns
        -------
        router : MetadataRouter
        """
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        splitter = getattr(self.train_split, "cv", None)
        if splitter is None:
            return router
        mapping = MethodMapping()
        mapping.add(caller="fit", callee="split")
        mapping.add(caller="partial_fit", callee="split")
        return router.add(splitter=splitter, method_mapping=mapping)

    def __repr__(self, N_CHAR_MAX=700):
        return super(skorch.NeuralNet, self).__repr__(N_CHAR_MAX)

    def fit(self, X, y=None, sample_weight=None, **fit_params):
        """Fit the network to the rows of a table, and return self.

        Parameters
        ----------
        X : array-like, frame, sparse matrix or tensor, of shape (n_rows, n_features)
            Or of shape (n_rows, ...), as the module takes it. Numbers of any dtype. A dict of
            arrays, or a Dataset that holds its targets, is handed to skorch.
        y : array-like of shape (n_rows,) or, for regression, also (n_rows, n_outputs)
            A classifier also takes a table of 0 and 1, dense or sparse, with a column for each
            label: under a binary criterion, and with the MLP under the default one unless each row
            has exactly one label.
        sample_weight : array-like of shape (n_rows,), default=None
            Factors on the rows' losses. Only their ratios matter, and a row of weight 0 counts as
            absent.
        **fit_params
            Handed to the module's ``forward``, as in skorch.

        Raises
        ------
        ValueError
            For data or hyperparameters that cannot be used. The estimator is then unchanged.
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
            All the labels that any call may bring. A classifier needs them at its first call if
            that brings only some of them; later calls may repeat them. The weights of a dict
            `class_weight` are not normalised, so that a class weighs the same in each portion.

        Raises
        ------
        ValueError
            Also for ``class_weight="balanced"``, and for other `classes` than in the first call.
        """
        options = {"classes": classes, "fit_params": fit_params, "method": "partial_fit"}
        return self._fit(X, y, sample_weight, anew=not self.initialized_, **options)

    def _fit(self, X, y, sample_weight, *, anew, fit_params, classes=None, method="fit"):
        if classes is None and self._hook.adopt(self, X, fit_params):
            return self
        # A net that was trimmed for prediction cannot be trained again.
        self.check_training_readiness()
        with unchanged_on_error(self):
            check_hyperparameters(self)
            check_fit_params(self, fit_params)
            # Metadata that nobody has requested are refused before the data are read.
            self._route(method, fit_params)
            brings_targets = y is None and self.iterator_train is not DataLoader
            passes_through = brings_targets or self._passes_through(X, y)
            prepare = self._pass_through if passes_through else self._read_table
            is_portion = method == "partial_fit"
            if is_portion and is_classifier(self):
                check_portion(self, classes)
            rows = prepare(X, y, sample_weight, anew, classes, is_portion)
            self._rebuild_outdated()
            with told_fit(self, X, y, sample_weight):
                self._train(rows, Given(X, y), method, fit_params)
        return self

    def _train(self, rows, given, method, fit_params):
        """Run the fit loop on prepared `rows`, and tell callbacks of its beginning and its end."""
        shown = public_dataset(rows[0]) if isinstance(rows[0], Rows) else given
        # While this is set, what a callback sets by `set_params` takes effect at once.
        self._is_fitting = True
        try:
            self.notify("on_train_begin", X=shown.X, y=shown.y)
            self._run_fit_loop(rows, method, fit_params)
            self.notify("on_train_end", X=given.X, y=given.y)
        finally:
            vars(self).pop("_is_fitting", None)

    def _run_fit_loop(self, rows, method, fit_params):
        try:
            self.fit_loop(*rows, _routing_method=method, **fit_params)
        except KeyboardInterrupt:
            # skorch's own callbacks stop a fit so; without any it is the user who interrupts.
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
        """Check a table, initialize the net for it, and return the arguments of the fit loop."""
        given = X
        self._n_parts = 0
        reset = anew or not hasattr(self, "n_features_in_")
        X, y = check_rows(self, X, y, reset=reset, y_numeric=not is_classifier(self))
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
            if not has_embedding(self._whole_module()):
                warn_if_unscaled(X)
            if not is_classifier(self):
                warn_if_huge(target, self.criterion)
        given = None if self._hook.forgets_given_table else as_given(given, X)
        return (self._rows(X, y, target, weight, given),)

    def _can_widen(self):
        """Tell whether the fit may compute in float64.

        It may not if code or tensors of the user's would meet that dtype.
        """
        if find_override(self) or has_own_callbacks(self):
            return False
        if self.train_split or not self._has_standard_data():
            return False
        if "dtype" in self.get_params_for("module"):
            return False
        if type(self.module_) is not MLP or floating_dtype(self.module_) != torch.float32:
            return False
        is_of_torch = type(self.criterion_).__module__.startswith("torch.nn.")
        # MPS has no float64.
        return is_of_torch and self.device_.type != "mps"

    def _has_standard_data(self):
        """Tell whether dataset and iterators are skorch's; the iterators may have options."""
        iterators = (self.iterator_train, self.iterator_valid)
        are_standard = all(iterator is DataLoader for iterator in iterators)
        return are_standard and not is_replaced(self, "dataset")

    def _combine_weights(self, sample_weight, y, is_portion):
        """Return the rows' weights times those of their classes; None if there are neither."""
        class_weight = getattr(self, "class_weight", None)
        classes = getattr(self, "classes_", None) if is_classifier(self) else None
        return combine_weights(sample_weight, class_weight, y, classes, is_portion)

    def _outputs(self, X):
        """Return an array of the module's outputs for all rows, after the nonlinearity."""
        with limited_threads(1):
            known = self._hook.find_outputs(self, X)
        if known is not None:
            nonlinearity, batches = known
            threads = limited_threads(1)
        else:
            nonlinearity = self._get_predict_nonlinearity()
            batches = self.forward_iter(X, device="cpu")
            # A list has no shape; it is never long.
            n_rows, *row_shape = getattr(X, "shape", (0,))
            threads = few_threads(self._whole_module(), n_rows, row_shape)
        outputs = []
        with threads:
            for output in batches:
                # Of several outputs, the first is the prediction, as in skorch.
                if isinstance(output, tuple):
                    output = output[0]
                # NumPy has no bfloat16, and probabilities of float16 do not sum to 1.
                output = cast_floating(output, wide_dtype(output.dtype))
                if is_classifier(self) and output.shape[1:] == (1,):
                    output = output[:, 0]
                outputs.append(to_numpy(nonlinearity(output)))
        return np.concatenate(outputs)

    def _rows_asked(self, X):
        """Return X if predictions are made for its rows, or None.

        While skorch's callbacks replace `forward_iter`, predictions are those of earlier batches.
        """
        return None if "forward_iter" in vars(self) else X

    def _find_criterion(self):
        """Return the criterion of an initialized net, not compiled; None if it has not just one."""
        if len(self._criteria) != 1:
            return None
        criterion = getattr(self, self._criteria[0] + "_", None)
        return getattr(criterion, "_orig_mod", criterion)

    def _get_predict_nonlinearity(self):
        """Return what turns the module's outputs into predictions.

        Under a binary criterion skorch predicts columns of two classes. Here it is one probability
        for each target of a regressor, and for each label of a classifier whose rows may have
        several.
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
        # It depends on the criterion, which is dropped.
        self.predict_nonlinearity = self._get_predict_nonlinearity()
        super().trim_for_prediction()


def _as_they_are(outputs):
    return outputs
