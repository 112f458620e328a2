"""What the searches have in common: networks that are trained together, and ensembles of them."""

from copy import copy

from sklearn import model_selection
from sklearn.utils.metaestimators import available_if

from sktune.bridge.seam import fused_tasks
from sktune.engine.report import FusionReport
from sktune.search.ensembles.building import build_ensemble, check_ensemble, open_models
from sktune.search.simplicity import OneStandardError, check_order


def _predicts_by(name):
    """Return a check whether a search, or its ensemble, has a method."""

    def check(search):
        if getattr(search, "ensemble_", None) is not None:
            return hasattr(search.ensemble_, name)
        # raises scikit-learn's own error if the best estimator has no such method
        getattr(super(_FusedSearch, search), name)
        return True

    return check


class _FusedSearch:
    """What all searches have in common, beside a search of scikit-learn's as another base."""

    ensemble = None
    ensemble_refit = False

    def fit(self, X, y=None, **params):
        """Run fit with all sets of parameters, as in scikit-learn."""
        check_order(self)
        options = self._fusing_options()
        if self.ensemble is not None:
            check_ensemble(self, y)
            options["keeper"] = open_models(self)
        for name in ("ensemble_", "ensemble_weights_", "ensemble_score_", "oof_predictions_"):
            vars(self).pop(name, None)
        with fused_tasks(**options):
            super().fit(X, y, **params)
        self.fusion_ = options["report"]
        if self.ensemble is not None:
            build_ensemble(self, options["keeper"])
        return self

    @staticmethod
    def _select_best_index(refit, refit_metric, results):
        """Return the candidate to refit; scikit-learn asks this private method for it."""
        if isinstance(refit, str) and refit == "one_standard_error":
            return OneStandardError(metric=refit_metric)(results)
        select = model_selection.GridSearchCV._select_best_index
        return select(refit, refit_metric, results)

    def _fusing_options(self):
        """Return the options of the backend that trains the fits."""
        return {"report": FusionReport(), "progress": self.verbose > 0}

    @property
    def curves_(self):
        """How each fused fit went: a frame of candidate, split, epoch, losses and learning rate."""
        # only those who look at curves need pandas
        from pandas import DataFrame

        return DataFrame(self.fusion_.curves.columns)

    def _predictor(self):
        """Return the search as scikit-learn's methods see it, with the ensemble as its best model.

        It is the search itself if there is no ensemble.
        """
        if getattr(self, "ensemble_", None) is None:
            return super()
        stand_in = copy(self)
        stand_in.best_estimator_ = self.ensemble_
        stand_in.refit = self.refit or True
        return super(_FusedSearch, stand_in)

    @available_if(_predicts_by("predict"))
    def predict(self, X):
        """Predict with the ensemble, or with the best estimator if there is none."""
        return self._predictor().predict(X)

    @available_if(_predicts_by("predict_proba"))
    def predict_proba(self, X):
        """Return the probability of each class, of the ensemble or of the best estimator."""
        return self._predictor().predict_proba(X)

    @available_if(_predicts_by("predict_log_proba"))
    def predict_log_proba(self, X):
        """Return the logarithm of :meth:`predict_proba`."""
        return self._predictor().predict_log_proba(X)

    def score(self, X, y=None, **params):
        """Return the score of the ensemble, or of the best estimator if there is none."""
        return self._predictor().score(X, y, **params)
