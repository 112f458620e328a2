"""What the searches have in common: networks that are trained together, and ensembles of them."""

import warnings

from sklearn import model_selection

from sktune.bridge.seam import chosen_backend, fused_tasks
from sktune.engine.report import FusionReport
from sktune.engine.store import MemoryStore
from sktune.engine.store.caching import open_cache
from sktune.runtime.diagrams.notebooks import ShowsSummary
from sktune.runtime.progress import make_progress
from sktune.runtime.versions import RemembersVersions
from sktune.search.ensembles.mixin import EnsembleSearch
from sktune.search.racing import complete_results, expecting_lost, make_race
from sktune.search.simplicity import OneStandardError, check_order

# What the trainings may take that a search in rounds keeps until it is over.
_MAX_STORE_BYTES = 2**28


def make_rounds_store():
    """Return what a search in rounds keeps its trainings in; None if the context has a store."""
    has_one = getattr(chosen_backend(), "options", {}).get("store") is not None
    return None if has_one else MemoryStore(_MAX_STORE_BYTES)


def warn_of_interrupt(n_candidates):
    """Warn that a search ends with what it has found before its last candidates."""
    warnings.warn(
        f"the search was interrupted, none of its last {n_candidates} candidates is complete: "
        "it ends with the best of those before",
        UserWarning,
        stacklevel=2,
    )


class _FusedSearch(RemembersVersions, ShowsSummary, EnsembleSearch):
    """What all searches have in common, beside a search of scikit-learn's as another base."""

    cache = None
    cache_limit = 1024
    checkpoint_interval = 60.0
    racing = False

    def fit(self, X, y=None, **params):
        """Run fit with all sets of parameters, as in scikit-learn."""
        check_order(self)
        self._race = make_race(self)
        options = self._fusing_options()
        self._report = options["report"]
        kept = self._kept = self._begin_ensemble(y)
        self._progress = options["progress"]
        try:
            with fused_tasks(keeper=kept, **options):
                super().fit(X, y, **params)
            self._complete_results()
        finally:
            self._progress.close()
            del self._progress, self._report, self._race, self._kept
        self.fusion_ = options["report"]
        self.interrupted_ = self.fusion_.is_interrupted
        if kept is not None:
            self._drop_models(kept)
            # members that are fitted to all rows are recorded, too
            shared = {"store": options["store"]} if "store" in options else {}
            with fused_tasks(**shared):
                self._end_ensemble(kept, X, y, params)
        return self

    def _complete_results(self):
        """Put into ``cv_results_`` what scikit-learn does not know of."""

    @staticmethod
    def _select_best_index(refit, refit_metric, results):
        """Return the candidate to refit; scikit-learn asks this private method for it."""
        if isinstance(refit, str) and refit == "one_standard_error":
            return OneStandardError(metric=refit_metric)(results)
        select = model_selection.GridSearchCV._select_best_index
        return select(refit, refit_metric, results)

    def _fusing_options(self):
        """Return the options of the backend that trains the fits."""
        # several scores have that one which chooses, where a name tells it
        metric = getattr(self.refit, "metric", self.refit)
        progress = make_progress(self.verbose > 0, metric if isinstance(metric, str) else None)
        options = {"report": FusionReport(), "progress": progress, "can_end_early": True}
        if self._race is not None:
            options["race"] = self._race
        store = self._make_store()
        # without one of its own, a search has that of the surrounding context
        return options if store is None else {**options, "store": store}

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        """Make ``cv_results_``, as scikit-learn does, without candidates that are left out."""
        left_out = self._find_left_out()
        if left_out:
            kept = [n for n in range(len(candidate_params)) if n not in left_out]
            candidate_params = [candidate_params[n] for n in kept]
            out = [out[n * n_splits + split] for n in kept for split in range(n_splits)]
            more_results = {
                name: [column[n] for n in kept] for name, column in (more_results or {}).items()
            }
        if not self.racing:
            return super()._format_results(candidate_params, n_splits, out, more_results)
        with expecting_lost():
            results = super()._format_results(candidate_params, n_splits, out, more_results)
        complete_results(results, out, n_splits)
        return results

    def _drop_models(self, kept):
        """Forget the fold models of candidates that are not among the results."""
        kept.drop(self.fusion_.left_out, self.n_splits_)

    def _find_left_out(self):
        """Return the numbers of the candidates that were not complete at an interrupt."""
        return set(self._report.left_out)

    def _make_store(self):
        """Return the store of one ``fit`` of the search; None for that of the context, if any."""
        return open_cache(self.cache, self.cache_limit, self.checkpoint_interval)

    @property
    def curves_(self):
        """How each fused fit went: a frame of candidate, split, epoch, losses and learning rate."""
        curves = self.fusion_.curves
        try:
            # only those who look at curves need pandas
            from pandas import DataFrame
        except ImportError as error:
            # scikit-learn's diagram leaves out an attribute that is not there
            raise AttributeError("curves_ needs pandas: pip install pandas") from error
        return DataFrame(curves.columns)
