"""The run of a search in stages."""

import numpy as np
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.utils import check_random_state

from sktune.search.rounds.sizes import default_batch_size
from sktune.search.rounds.sources import Listed
from sktune.search.samplers.batches import Asked
from sktune.search.samplers.distributions import Space
from sktune.search.samplers.own_settings import read_own_settings
from sktune.search.staging.spaces import is_list_only, list_companions, narrow_parts


class StagedRun:
    """One fit of a search in stages.

    Parameters
    ----------
    search : StagedSearch
    rounds : Rounds
    stages : list of Stage
    """

    def __init__(self, search, rounds, stages):
        self.search = search
        self.rounds = rounds
        self.stages = stages
        self.rng = check_random_state(search.random_state)
        # the parameters that earlier stages have tuned
        self.tuned = []
        self.best_params = {}

    def run(self):
        """Evaluate the baseline and the stages; return why the search ends, in words."""
        n_later = sum(stage.n_candidates for stage in self.stages)
        self._evaluate("baseline", Listed([{}]), {}, n_later=n_later)
        if self.rounds.session.report.is_interrupted:
            return self.search.stages_[-1]["stop_reason"]
        for number, stage in enumerate(self.stages, 1):
            n_later -= stage.n_candidates
            parts = narrow_parts(stage.parts, self._find_center(), self.search.narrow)
            self._run_stage(stage, parts, n_later)
            self.tuned = list(dict.fromkeys(name for part in stage.tuned for name in part))
            if self.rounds.session.report.is_interrupted:
                return self.search.stages_[-1]["stop_reason"]
            if self.rounds.session.deadline.is_over and not self._is_all(number):
                n_complete = len(self.rounds.session.kept)
                return (
                    f"the timeout of {self.search.timeout} s is over in stage {stage.name!r}, "
                    f"{n_complete} candidates are complete"
                )
        return f"all {len(self.stages)} stages are evaluated"

    def _is_all(self, n_stages):
        """Tell whether no stage is left, and each candidate so far is complete."""
        outcomes = self.rounds.session.outcomes
        return n_stages == len(self.stages) and all(outcome.is_complete for outcome in outcomes)

    def _run_stage(self, stage, parts, n_later):
        """Evaluate the candidates of a stage, whose space is narrowed."""
        search = self.search
        rule = None
        space = None
        if stage.is_bayesian or (search.stop is not None and not stage.is_grid):
            space = Space(parts)
        if search.stop is not None and not stage.is_grid:
            seed = self.rng.randint(2**31 - 1)
            rule = search._make_rule(space, is_adaptive=stage.is_bayesian, seed=seed)
        if stage.is_bayesian:
            source = StageCandidates(self, stage, space, self.rng.randint(2**31 - 1))
        else:
            drawn = self._draw(stage, parts)
            source = Listed([self.complete(stage, params) for params in drawn], space)
        if space is not None:
            self._tell_known(source, space)
        shown = parts[0] if len(parts) == 1 else parts
        self._evaluate(stage.name, source, shown, rule, n_later, in_rounds=stage.is_bayesian)

    def _evaluate(self, name, source, space, rule=None, n_later=0, in_rounds=False):
        """Evaluate the candidates of a source, and note what the stage has found."""
        search = self.search
        n_before = len(self.rounds.session.kept)
        # what cannot end early is evaluated at once
        is_one_round = not in_rounds and rule is None and search.timeout is None
        rounds = self.rounds.of_stage(name, is_one_round)
        batch_size = source.n_left
        if not is_one_round:
            batch_size = default_batch_size(search, source.n_left)
        reason = ""
        if source.n_left > 0:
            reason = rounds.run(source, batch_size, rule, n_later)
        if not is_one_round:
            rounds.tasks.end()
        results = self.rounds.results
        best = self._find_best(results)
        self.best_params = results["params"][best]
        search.stages_.append(
            {
                "name": name,
                "n_candidates": len(results["params"]) - n_before,
                "space": space,
                "best_score": self._read_score(results, best),
                "best_params": self.best_params,
                "stop_reason": reason or "no candidate of the space is left",
            }
        )

    def _find_center(self):
        """Return the values of the best candidate for all parameters that are tuned already."""
        # where the baseline is the best, its values are the estimator's
        values = {**read_own_settings(self.search.estimator, self.tuned), **self.best_params}
        return {name: values[name] for name in self.tuned if name in values}

    def _tell_known(self, source, space):
        """Tell a source of the best candidate so far and of the baseline, if these are its own."""
        own = read_own_settings(self.search.estimator, space.names)
        kept = self.rounds.session.kept
        metric = self.search._find_metric(kept[0])
        known = {}
        for row in (self._find_best(self.rounds.results), 0):
            point = space.find_point({**own, **kept[row].params})
            if point is not None and np.isfinite(kept[row].score(metric)):
                known.setdefault(point, kept[row])
        source.know(list(known), list(known.values()))

    def _draw(self, stage, parts):
        """Return what the candidates of a stage set of its space."""
        grid = ParameterGrid(parts) if is_list_only(parts) else None
        if stage.is_grid:
            return list(grid)
        n_iter = stage.n_iter
        if grid is not None:
            # ParameterSampler warns where there are not as many
            n_iter = min(n_iter, len(grid))
        return list(ParameterSampler(parts, n_iter, random_state=self.rng))

    def complete(self, stage, params):
        """Return a candidate: what a stage sets, and what the best candidate so far has beside.

        Parameters that belong to other parts of the space are left out.
        """
        names = list_companions(stage.tuned, params)
        carried = {name: value for name, value in self.best_params.items() if name in names}
        return {**carried, **params}

    def _find_best(self, results):
        """Return the row of the best candidate so far."""
        if callable(self.search.refit):
            return self.search.refit(results)
        return int(np.argmin(results[f"rank_test_{self._name_metric(results)}"]))

    def _read_score(self, results, row):
        """Return a candidate's mean score; None where a callable chooses among several metrics."""
        if callable(self.search.refit) and "mean_test_score" not in results:
            return None
        return float(results[f"mean_test_{self._name_metric(results)}"][row])

    def _name_metric(self, results):
        """Return the name under which the results have the metric that chooses."""
        if "rank_test_score" in results:
            return "score"
        refit = self.search.refit
        if not isinstance(refit, str):
            raise ValueError(
                "refit must name the metric by which stages choose where there are several, "
                f"got refit={refit!r}"
            )
        return refit


class StageCandidates(Asked):
    """The candidates of a stage that a sampler chooses.

    Parameters
    ----------
    run : StagedRun
    stage : Stage
    space : Space
    seed : int
    """

    def __init__(self, run, stage, space, seed):
        super().__init__(run.search, stage.sampler, space, stage.n_iter, seed)
        self.run = run
        self.stage = stage

    def params_at(self, point):
        """Return the parameters of a candidate, those of earlier stages included."""
        return self.run.complete(self.stage, self.space.params_at(point))
