"""A fit that a task will make: what is known of it from its preparation to its end."""

from copy import deepcopy
from dataclasses import dataclass, field

from sklearn.pipeline import Pipeline

from sktune.engine.specs import FitResult, FitSpec
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.callbacks.seam import forget_callbacks
from sktune.estimators.components import BUILT


@dataclass
class Template:
    """An initialized net that several fits begin with.

    Parameters
    ----------
    net : NeuralNet
        The initialized net.
    attributes : dict
        What its preparation has set and an unfitted net does not have, without its parts (module,
        optimizer and the like).
    """

    net: object
    attributes: dict

    @classmethod
    def of(cls, net, unfitted):
        """Return the template of an initialized net, which was a twin of the `unfitted` one."""
        before = vars(unfitted)
        attributes = {}
        for name, value in vars(net).items():
            is_new = name not in before or before[name] is not value
            if is_new and name not in BUILT and name != "_narrow_to":
                attributes[name] = value
        return cls(net, attributes)


@dataclass
class Fit:
    """A fit that a task will make, prepared up to its training.

    Parameters
    ----------
    place : tuple of (int or None, int or None)
        The numbers of candidate and split.
    key : object
        Equal for fits on the same rows.
    net : object
        The task's own net; it stays unfitted until the task runs.
    pipeline : Pipeline or None
        The pipeline that ends in the net.
    spec : FitSpec or None
        What is trained; None if the fit is not fused.
    template : Template or None
        The initialized net that the fit begins with.
    group_key : object
        Equal for fits that can be trained together.
    reason : str
        Why the fit is not fused.
    result : FitResult or None
        What was trained.
    test_rows : tuple of (ndarray, ndarray), or ()
        A table, and the numbers of its rows for which predictions will be asked.
    steps : list of tuple of (int, transformer)
        How many rows each step of the pipeline has returned, and the fitted step.
    table : object
        The rows that the last step has returned; None once the net need not be trained alone.
    caught : list
        The warnings of the preparation; the first `n_step_warnings` are those of the steps.
    n_step_warnings : int
        How many warnings the steps have caused.
    seconds : float
        The fit's share of the training's time.
    group : dict or None
        What the report tells of the group that the fit was trained in.
    failure : Exception or None
        An error in the training, caused by the engine or by the user's code.
    draws : bool
        Whether the preparation drew from the random generators that the whole process shares.
    before, between, after : tuple or None
        The states of these generators when the preparation began, after the steps, and at the end;
        None where it drew nothing.
    identity : object
        Equal to nothing of another fit.
    callbacks : list of tuple of (str, Callback), or None
        skorch's callbacks of the net, initialized, where the user gave it some.
    valid : Dataset or None
        The validation rows of a fit that others follow.
    telling : Telling or None
        Tells scikit-learn's callbacks of the fit; None if there are none, or it is not fused.
    """

    place: tuple = (None, None)
    key: object = None
    net: object = None
    pipeline: object = None
    spec: FitSpec | None = None
    template: Template | None = None
    group_key: object = None
    reason: str = ""
    result: FitResult | None = None
    test_rows: tuple = ()
    steps: list = field(default_factory=list)
    table: object = None
    caught: list = field(default_factory=list)
    n_step_warnings: int = 0
    seconds: float = 0.0
    group: dict | None = None
    failure: Exception | None = None
    draws: bool = False
    before: tuple | None = None
    between: tuple | None = None
    after: tuple | None = None
    identity: object = field(default_factory=object)
    callbacks: list | None = None
    valid: object = None
    telling: object = None


def net_of(estimator):
    """Return the last step of a pipeline; any other estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def make_twin(estimator):
    """Return an estimator of the same class with the same attributes, which are not copied."""
    twin = object.__new__(type(estimator))
    vars(twin).update(vars(estimator))
    return twin


def make_draft(estimator):
    """Return a twin of an estimator that can be fitted in its place; the estimator stays as it is.

    A pipeline gets a twin of its last step, and a random generator of a net is copied. No callbacks
    of scikit-learn's hear of its fit.
    """
    net = make_twin(net_of(estimator))
    forget_callbacks(net)
    if isinstance(net, NetworkEstimator):
        net.random_state = deepcopy(net.random_state)
    if not isinstance(estimator, Pipeline):
        return net
    draft = make_twin(estimator)
    forget_callbacks(draft)
    last_name, _ = estimator.steps[-1]
    draft.steps = [*estimator.steps[:-1], (last_name, net)]
    draft.verbose = False
    return draft
