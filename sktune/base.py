"""What the networks share of scikit-learn's face."""

import numpy as np
import skorch
import torch
from sklearn.base import is_classifier

from sktune import validation
from sktune.data import Rows
from sktune.modules import few_threads, keeps_integers
from sktune.training import Training

_FEW_ROWS = 100


class NetworkEstimator(Training):
    """What classifier and regressor share of scikit-learn's face."""

    def _assign(self, arguments):
        """Set the constructor's arguments, and do nothing else."""
        arguments |= arguments.pop("kwargs")
        for name in arguments.keys() - {"self", "__class__"}:
            setattr(self, name, arguments[name])

    @property
    def _params_to_validate(self):  # skorch checks these names' prefixes
        return {name for name in vars(self) if "__" in name and not name.startswith("_")}

    def _get_param_names(self):  # scikit-learn asks for the names that get_params tells
        return sorted(name for name in vars(self) if not (name.startswith("_") or name.endswith("_")))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = tags.estimator_type == "regressor"
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

        `classes` are all the labels that any call may bring; a classifier may need them, at its first call. For the
        other arguments see :meth:`fit`.
        """
        return self._fit(X, y, sample_weight, anew=not self.initialized_, classes=classes, fit_params=fit_params)

    def _fit(self, X, y, sample_weight, *, anew, fit_params, classes=None):
        adopt = vars(self).pop("_adopt", None)
        if adopt and adopt(X):  # the fused engine has trained this fit already
            return self
        with validation.unchanged_on_error(self):
            validation.check_hyperparameters(self)
            prepare = self._pass_through if validation.passes_through(X) else self._read_table
            rows = prepare(X, y, sample_weight, anew, classes)
            in_memory = isinstance(rows[0], Rows)  # which scoring callbacks will slice
            self.notify("on_train_begin", X=rows[0].X if in_memory else X, y=rows[0].y if in_memory else y)
            try:
                self.fit_loop(*rows, **fit_params)
            except KeyboardInterrupt:  # how skorch's own callbacks stop a fit; otherwise the user means it
                if not self.callbacks:
                    raise
            self.notify("on_train_end", X=X, y=y)
        return self

    def _pass_through(self, X, y, sample_weight, anew, classes):
        """Prepare skorch's own kinds of input; return the arguments of the fit loop."""
        weights = {"sample_weight": sample_weight, "class_weight": getattr(self, "class_weight", None)}
        for name, weight in weights.items():
            if weight is not None:
                raise ValueError(f"{name} must come with an array as X, got a dict or a Dataset")
        y = self._read_targets(X, y, anew, classes)
        if anew:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)
            self.initialize()
        return X, y

    def _read_table(self, X, y, sample_weight, anew, classes):
        """Check a table, initialize the network for it, and return the arguments of the fit loop."""
        anew_shape = anew or not hasattr(self, "n_features_in_")
        X, y = validation.check_rows(self, X, y, reset=anew_shape, y_numeric=not is_classifier(self))
        X, y, sample_weight = validation.check_sample_weight(X, y, sample_weight)
        target = self._read_targets(X, y, anew, classes)
        if anew:
            # Sums of few rows are exact enough in float64 not to depend on the rows' order, nor on whether a row is
            # repeated or weighted, and at that size the wider type costs nothing.
            is_wide = X.shape[0] < _FEW_ROWS and validation.resolve_device(self.device).type != "mps"
            self.initialize(n_features=int(np.prod(X.shape[1:])), dtype=torch.float64 if is_wide else None)
            if not keeps_integers(X, self.module_):
                validation.warn_if_unscaled(X)
        weight = validation.combine_weights(sample_weight, getattr(self, "class_weight", None), y)
        return (self._rows(X, y, target, weight),)

    def _outputs(self, X):
        """Return the module's outputs for all rows, with the criterion's nonlinearity, as an array."""
        nonlinearity, outputs = self._get_predict_nonlinearity(), []
        with few_threads(self.module_, getattr(X, "shape", (0,))[0]):  # a list is never long
            for output in self.forward_iter(X, device="cpu"):
                output = output[0] if isinstance(output, tuple) else output
                is_binary = is_classifier(self) and output.shape[1:] == (1,)
                outputs.append(nonlinearity(output[:, 0] if is_binary else output))
        return torch.cat(outputs).detach().numpy()

    def trim_for_prediction(self):
        """Drop what only training needs, as in skorch; predictions stay as they are."""
        self.predict_nonlinearity = self._get_predict_nonlinearity()  # which the criterion tells, that will be gone
        super().trim_for_prediction()
