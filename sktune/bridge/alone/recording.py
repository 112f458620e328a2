"""The fit of one net that is recorded: the refit of a search, or a plain ``fit``."""

from numbers import Integral

from sktune.bridge.blockers import why_alone_initialized, why_settings_alone
from sktune.bridge.fits import Fit
from sktune.bridge.install import install_parts
from sktune.bridge.reading import notice_first_outputs, read_spec
from sktune.bridge.seam import PlannedFit, chosen_backend
from sktune.bridge.skorch_nets import why_told
from sktune.bridge.tables import Tables
from sktune.bridge.watching.served import list_settings
from sktune.engine.executor import Trainer
from sktune.engine.planner import group_key
from sktune.engine.report import FusionReport
from sktune.estimators.callbacks.tasks import NO_TASKS
from sktune.estimators.hook import NO_HOOK, FitHook, register_surrounding
from sktune.training.rows import Rows


class RecordedFit(FitHook):
    """Trains a net by the engine, so that a store knows the fit and keeps it.

    A net that the engine cannot train goes on by itself.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store):
        self.store = store

    def replace_training(self, net, dataset, epochs, fit_params):
        """Train a net that is initialized, or find out what its training comes to."""
        is_told = why_told(epochs, **fit_params) or net._tasks is not NO_TASKS
        if is_told or not _is_new(net) or not isinstance(dataset, Rows):
            return False
        if why_settings_alone(net) or why_alone_initialized(net, dataset):
            return False
        # callbacks hear of the epochs of a fit while it trains
        if list_settings(net):
            return False
        tables = Tables()
        fit = Fit(net=net, spec=read_spec(net, dataset, _NOTHING_PLANNED, tables))
        fit.group_key = group_key(fit.spec, tables.by_name)
        trainer = Trainer(n_workers=1, report=FusionReport(), store=self.store)
        plans = trainer.plan([fit], tables.by_name)
        if fit.reason:
            return False
        notice_first_outputs(net, fit.spec, tables)
        trainer.train(plans)
        if fit.result is None:
            return False
        if fit.result.error is not None:
            raise fit.result.error
        install_parts(net, fit.spec, fit.result)
        return True


# all rows are trained on, and nothing is known of those that will be predicted
_NOTHING_PLANNED = PlannedFit(
    estimator=None, X=None, y=None, params={}, key=(), whole=None, train=None, test=None
)


def _is_new(net):
    """Tell whether a fit begins with nothing of an earlier one, and by a seed that is given."""
    has_own_history = net.history_ is vars(net).get("_own_history") and not net.history_
    is_seeded = isinstance(net.random_state, Integral)
    return is_seeded and has_own_history and not net.optimizer_.state


def find_recorded_fit():
    """Return the hook of fits in the surrounding context: it records where there is a cache."""
    store = getattr(chosen_backend(), "store", None)
    return NO_HOOK if store is None or not store.is_durable else RecordedFit(store)


register_surrounding(find_recorded_fit)
