"""The stages of a search, read and checked before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

from sklearn.model_selection import ParameterGrid, ParameterSampler

from sktune.runtime.names import check_name
from sktune.runtime.optional import import_optuna
from sktune.search.samplers.distributions import Space
from sktune.search.samplers.optuna_samplers import check_sampler
from sktune.search.settable import check_settable
from sktune.search.staging.spaces import is_list_only, merge_parts, read_parts

SAMPLERS = ("gp", "random", "grid", "tpe")
# What a stage has that an option given as a dict does not name.
_DEFAULTS = {"n_iter": 20, "sampler": "gp"}


@dataclass(frozen=True)
class Stage:
    """A stage of a search.

    Parameters
    ----------
    name : str
    parts : list of dict
        Its space before narrowing.
    tuned : list of dict
        The spaces of this stage and of those before, together.
    n_iter : int
    sampler : object
        See :class:`sktune.StagedSearch`.
    """

    name: str
    parts: list
    tuned: list
    n_iter: int
    sampler: object

    @property
    def is_grid(self):
        """Whether all candidates of the space are evaluated."""
        return isinstance(self.sampler, str) and self.sampler == "grid"

    @property
    def is_bayesian(self):
        """Whether the candidates are chosen by the scores so far."""
        return not isinstance(self.sampler, str) or self.sampler not in ("grid", "random")

    @property
    def n_candidates(self):
        """How many candidates there are at most."""
        if not is_list_only(self.parts):
            return self.n_iter
        n_values = len(ParameterGrid(self.parts))
        return n_values if self.is_grid else min(self.n_iter, n_values)


def read_stages(search):
    """Return the stages of a search, each a :class:`Stage`; raise a ValueError for what is wrong.

    Parameters
    ----------
    search : StagedSearch
    """
    if not isinstance(search.narrow, Real) or not 0 < search.narrow <= 1:
        raise ValueError(f"narrow must be above 0 and at most 1, got narrow={search.narrow!r}")
    names = _read_names(search.stages)
    for option in _DEFAULTS:
        value = getattr(search, option)
        if isinstance(value, Mapping):
            for name in value:
                check_name(f"a stage in {option}", name, names)
    stages = []
    tuned = [{}]
    for name, space in search.stages:
        parts = tuned if space is None else read_parts(name, space)
        tuned = tuned if space is None else merge_parts(tuned, parts)
        n_iter = _read_option(search, "n_iter", name)
        stage = Stage(name, parts, tuned, n_iter, _read_option(search, "sampler", name))
        _check_n_iter(stage)
        _check_sampler(search, stage)
        for part in tuned:
            # one draw of each parameter shows whether it can be set
            (params,) = ParameterSampler([part], 1, random_state=0)
            check_settable(f"stage {name!r}", search.estimator, params)
        stages.append(stage)
    return stages


def _read_names(stages):
    """Return the names of stages; raise unless these are pairs of different names and spaces."""
    if not isinstance(stages, (list, tuple)):
        raise ValueError(f"stages must be a list of pairs (name, space), got {stages!r}")
    if len(stages) == 0:
        raise ValueError("stages must have at least one stage, got none")
    names = []
    for stage in stages:
        is_pair = isinstance(stage, (tuple, list)) and len(stage) == 2
        if not is_pair or not isinstance(stage[0], str):
            raise ValueError(f"a stage must be a pair (name, space), got {stage!r}")
        name, space = stage
        if name == "baseline" or name in names:
            raise ValueError(f"stages must have different names, none 'baseline', got {name!r}")
        if space is None and not names:
            raise ValueError(f"the first stage must have a space, got None for {name!r}")
        names.append(name)
    return names


def _read_option(search, option, name):
    """Return what `n_iter` or `sampler` is for a stage."""
    value = getattr(search, option)
    if isinstance(value, Mapping):
        return value.get(name, _DEFAULTS[option])
    return value


def _check_n_iter(stage):
    """Raise unless a stage's number of candidates can be used."""
    n_iter = stage.n_iter
    if not isinstance(n_iter, Integral) or isinstance(n_iter, bool) or n_iter < 1:
        raise ValueError(
            f"n_iter must be at least 1, got n_iter={n_iter!r} for stage {stage.name!r}"
        )


def _check_sampler(search, stage):
    """Raise for a sampler that cannot be used, or not with the stage's space."""
    if isinstance(stage.sampler, str):
        check_name("sampler", stage.sampler, SAMPLERS)
    if stage.is_grid and not is_list_only(stage.parts):
        raise ValueError(
            f"stage {stage.name!r} must have lists of values only for sampler='grid', "
            "got a distribution"
        )
    if stage.is_bayesian and stage.sampler != "gp":
        import_optuna(f"StagedSearch with stage {stage.name!r}")
        check_sampler(stage.sampler)
    if stage.is_bayesian or (search.stop is not None and not stage.is_grid):
        # a sampler has to know where candidates lie, and so has a rule for stopping
        _check_space(stage)
        _check_refit(search)


def _check_space(stage):
    """Raise for a space in which it is not known where candidates lie."""
    try:
        Space(stage.parts)
    except ValueError as error:
        raise ValueError(
            f"{error}; with sampler='random' and without stop, stage {stage.name!r} takes any "
            "distribution with rvs"
        ) from error


def _check_refit(search):
    """Raise unless there is one score to go by."""
    has_several = search.scoring is not None and not isinstance(search.scoring, str)
    has_several = has_several and not callable(search.scoring)
    if has_several and not isinstance(search.refit, str):
        raise ValueError(
            "refit must name the metric by which a Bayesian stage chooses, or a stage stops, where "
            "there are several; with sampler='random' and without stop it may choose itself, "
            f"got refit={search.refit!r}"
        )
