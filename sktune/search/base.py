"""What the searches have in common: networks that are trained together, and ensembles of them."""

from sktune.bridge.seam import fused_tasks
from sktune.engine.report import FusionReport
from sktune.search.ensembles.mixin import EnsembleSearch


class _FusedSearch(EnsembleSearch):
    """What all searches have in common, beside a search of scikit-learn's as another base."""

    def fit(self, X, y=None, **params):
        """Run fit with all sets of parameters, as in scikit-learn."""
        options = self._fusing_options()
        kept = self._begin_ensemble(y)
        with fused_tasks(keeper=kept, **options):
            super().fit(X, y, **params)
        self.fusion_ = options["report"]
        if kept is not None:
            self._end_ensemble(kept, X, y, params)
        return self

    def _fusing_options(self):
        """Return the options of the backend that trains the fits."""
        return {"report": FusionReport(), "progress": self.verbose > 0}

    @property
    def curves_(self):
        """How each fused fit went: a frame of candidate, split, epoch, losses and learning rate."""
        # only those who look at curves need pandas
        from pandas import DataFrame

        return DataFrame(self.fusion_.curves.columns)
