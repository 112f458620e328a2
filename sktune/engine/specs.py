"""Fits as data: what a fit follows from, where its training stands, and what came of it.

These objects can be pickled, and hold nothing of the estimator that they were read from. Tables are
not part of them: a spec names its table, by the digest of its contents, and picks rows of it.
"""

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import nn

from sktune.engine.digest import VERSIONS, digest
from sktune.engine.events import EpochWatcher
from sktune.engine.sampling import Sampling
from sktune.modules.dropout import serve_dropout
from sktune.runtime.dtypes import narrow
from sktune.runtime.seeds import INIT, mix, seeded
from sktune.training.augmentation.augmenter import Augmenter
from sktune.training.augmentation.base import Augmentation
from sktune.training.rates import LRSchedule
from sktune.training.stopping import BestEpoch


class InitialModule:
    """A module as a fit begins with it; it must not be changed.

    Parameters
    ----------
    module : nn.Module
        The module, its dropout layers served by counter-based masks.
    recipe : tuple of (class, dict, int) or None
        The class and the arguments that the module was built from, and the seed of the fit. A
        pickle holds these alone if they build an equal module again; else it holds the module.
    """

    def __init__(self, module, recipe=None):
        self.module = module
        self.recipe = recipe
        self.dtypes = tuple(p.dtype for p in module.parameters())
        # that of the module, once somebody has asked for it
        self._digest = None

    def __getstate__(self):
        if self.recipe is not None and _are_equal(self._rebuild(), self.module):
            return {"recipe": self.recipe, "dtypes": self.dtypes}
        return {"module": self.module, "recipe": None, "dtypes": self.dtypes}

    def __setstate__(self, state):
        vars(self).update(state)
        self._digest = None
        if "module" not in state:
            self.module = self._rebuild()

    def _rebuild(self):
        """Build the module as the estimator did."""
        module_class, arguments, seed = self.recipe
        with seeded(mix(seed, INIT)):
            module = module_class(**arguments)
        serve_dropout(module, seed)
        # an estimator may compute in a wider type
        return module.to(self.dtypes[0])

    def on(self, device):
        """Return this module, or a copy of it on another device."""
        tensors = (*self.module.parameters(), *self.module.buffers())
        if all(tensor.device == device for tensor in tensors):
            return self
        moved = copy(self)
        moved.module = deepcopy(self.module).to(device)
        return moved

    def __digest__(self):
        if self._digest is None:
            self._digest = digest(self.module)
        return self._digest


def _are_equal(one, other):
    """Tell whether the parameters and buffers of two modules are equal, their types included."""
    ours = one.state_dict()
    theirs = other.state_dict()
    if ours.keys() != theirs.keys():
        return False
    for name, tensor in ours.items():
        if tensor.dtype != theirs[name].dtype:
            return False
        if not torch.equal(tensor.cpu(), theirs[name].cpu()):
            return False
    return True


@dataclass(frozen=True, eq=False)
class LossSpec:
    """What a fit minimizes, beside the penalties.

    `match` is one of the functions of :mod:`sktune.training.losses` that bring outputs and targets
    together: ``match(criterion, y_pred, y_true, n_classes)``. `n_classes` is the number of classes
    that the outputs must tell, or None.
    """

    criterion: nn.Module
    match: Callable
    n_classes: int | None = None

    def bring_together(self, y_pred, y_true):
        """Return outputs and targets of rows as the criterion compares them."""
        return self.match(self.criterion, y_pred, y_true, self.n_classes)


@dataclass(frozen=True, eq=False)
class OptimizerSpec:
    """A class of :mod:`torch.optim`, and the options of its one group of parameters."""

    type: type
    options: dict


@dataclass(frozen=True, eq=False)
class RowSet:
    """The rows of a table that a fit takes. Fits on the same rows share one of these.

    Parameters
    ----------
    table : str
        The name of the table: the digest of its contents.
    n_train : int
        How many rows the fit trains on.
    train : Tensor of shape (n_train,) or None
        Their indices; None is all rows of the table.
    valid : Tensor of shape (n_valid,) or None
        Those of the rows that the fit validates on.
    test : Tensor of shape (n_test,) or None
        Those of the rows that the fitted net will be asked for, if they are known.
    n_valid_batches : int or None
        In how many batches a net alone evaluates its validation rows.
    valid_batch_size : int or None
        How many of the validation rows a net alone evaluates at once.
    test_batch_size : int or None
        How many of the test rows a net alone evaluates at once.
    """

    table: str
    n_train: int
    train: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    test: torch.Tensor | None = None
    n_valid_batches: int | None = None
    valid_batch_size: int | None = None
    test_batch_size: int | None = None

    @cached_property
    def training_digest(self):
        """A text that is equal for equal rows to train and to validate on."""
        return digest((self.table, self.train, self.valid))

    @cached_property
    def test_digest(self):
        """A text that is equal for equal test rows and batches of them; empty without any."""
        if self.test is None:
            return ""
        return digest((self.table, self.test, self.test_batch_size))

    def __getstate__(self):
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, eq=False)
class FitSpec:
    """All that a fit follows from.

    Parameters
    ----------
    module : InitialModule
    dropout : tuple of float
        The rate of each dropout layer.
    loss : LossSpec
    optimizer : OptimizerSpec
    schedule : LRSchedule
    l1, l2 : float
        The strengths of the penalties.
    sampling : Sampling
        How batches and dropout masks are drawn.
    rows : RowSet
    n_epochs : int
        The epochs of the fit, unless it stops early.
    seed : int
        The seed of the fit.
    stopping : BestEpoch or None
        The rule of early stopping, as it is before the first epoch.
    narrow_to : torch.dtype or None
        The floating type of the fitted module, where the fit computes in a wider one.
    must_be_finite : bool
        Whether a fit that leaves the finite numbers fails; else it goes on, as it would alone.
    is_regressor : bool
        Whether the advice on divergence is that for a regressor.
    runs_user_code : bool
        Whether code of the user's takes part in a training step.
    n_outputs : int or None
        The outputs that the data call for.
    device : str
        Where the fit computes.
    is_auto : bool
        Whether the user has left the device to the library: a worker takes its own.
    augmentation : Augmentation or None
        What changes the rows in training; it must not be changed.
    keeps_outputs : bool
        Whether the outputs for the test rows are computed when the fit is over.
    clips : tuple of Clip
        The turns of gradient clipping, after the penalties.
    watcher : EpochWatcher or None
        What looks at each epoch, as it is before the first one.
    """

    module: InitialModule
    dropout: tuple
    loss: LossSpec
    optimizer: OptimizerSpec
    schedule: LRSchedule
    l1: float
    l2: float
    sampling: Sampling
    rows: RowSet
    n_epochs: int
    seed: int
    stopping: BestEpoch | None = None
    narrow_to: torch.dtype | None = None
    must_be_finite: bool = True
    is_regressor: bool = False
    runs_user_code: bool = True
    n_outputs: int | None = None
    device: str = "cpu"
    is_auto: bool = False
    augmentation: Augmentation | None = None
    keeps_outputs: bool = True
    clips: tuple = ()
    watcher: EpochWatcher | None = None

    @cached_property
    def digest(self):
        """A text that is equal for equal settings and data, also in other processes.

        The versions of torch and of sktune are part of it.
        """
        return digest((self._training_settings(), VERSIONS))

    @property
    def training_digest(self):
        """A text that is equal for fits that are one training, of whatever number of epochs.

        It is the `digest` without ``n_epochs``, which is part of it only where the schedule looks
        at the number of epochs planned.
        """
        return self.digest if self.schedule.looks_at_max_epochs else self.open_digest

    @cached_property
    def open_digest(self):
        """A text that is equal for fits that differ in their numbers of epochs only."""
        settings = self._training_settings()
        settings["schedule"] = replace(self.schedule, n_epochs=None)
        del settings["n_epochs"]
        return digest((settings, VERSIONS))

    def _training_settings(self):
        """Return all that the training follows from, by name."""
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__}
        # the training does not depend on what the fitted net is asked for
        del settings["keeps_outputs"]
        # nor on who has chosen the device, nor on which of several GPUs it is
        del settings["is_auto"]
        settings["device"] = torch.device(self.device).type
        settings["rows"] = self.rows.training_digest
        return settings

    def __getstate__(self):
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def narrow(self, tensors):
        """Return a dict of tensors in the floating type that the fitted net has."""
        return tensors if self.narrow_to is None else narrow(tensors, self.narrow_to)

    @property
    def has_penalties(self):
        """Whether penalties are part of the gradient."""
        return bool(self.l1 or self.l2)

    @property
    def augmenter(self):
        """What changes the batches of the fit, or None."""
        if self.augmentation is None:
            return None
        return Augmenter(self.augmentation, self.seed, mixes_targets=self.is_regressor)

    @property
    def batch_sizes(self):
        """The sizes of an epoch's batches."""
        return self.sampling.batch_sizes(self.rows.n_train)


@dataclass
class TrainState:
    """All that training goes on from.

    Parameters
    ----------
    epoch : int
        The epochs that are done.
    weights : dict of Tensor, or None
        Parameters and buffers by name; None is those of the initial module.
    optimizer : dict, or None
        The steps that are done, the tensors of the optimizer's state, flat (P,), by name, and which
        parameters these are of: see :func:`sktune.training.optimizer_state.load_state`.
    stopping : BestEpoch or None
        What early stopping remembers.
    best_weights : dict of Tensor, or None
        The weights of the best epoch, where early stopping restores them.
    generator : Tensor or None
        The state of the generator that batches and masks are drawn from, if there is one.
    is_over : bool
        Whether the fit is complete, or was stopped.
    watcher : EpochWatcher or None
        What looks at each epoch.
    """

    epoch: int = 0
    weights: dict | None = None
    optimizer: dict | None = None
    stopping: BestEpoch | None = None
    best_weights: dict | None = None
    generator: torch.Tensor | None = None
    is_over: bool = False
    watcher: EpochWatcher | None = None

    @classmethod
    def initial(cls, spec):
        """Return the state in which a fit begins."""
        return cls(
            stopping=copy(spec.stopping),
            generator=spec.sampling.initial_generator,
            watcher=spec.watcher,
        )

    @property
    def is_stopped(self):
        """Whether early stopping ends the fit here, however many epochs it has."""
        if self.watcher is not None and self.watcher.is_stopped:
            return True
        return self.stopping is not None and self.stopping.n_misses >= self.stopping.patience

    def end(self):
        """Return the state of a fit that ends here."""
        return replace(self, weights=self.fitted_weights, best_weights=None, is_over=True)

    @property
    def fitted_weights(self):
        """The weights of the net if the fit ends here."""
        return self.weights if self.best_weights is None else self.best_weights


@dataclass
class FitResult:
    """What a call of :func:`sktune.engine.group.train_group` made of a fit.

    Parameters
    ----------
    state : TrainState or None
        Where the training stands; None after an error.
    curve : dict of list
        A list for each column, with a value for each epoch of the call: ``epoch`` (from 1),
        ``train_loss``, ``lr``, ``dur`` (seconds) and ``train_batch_count``; with validation rows
        also ``valid_loss``, ``valid_acc`` and ``valid_batch_count``.
    error : Exception or None
        Why there is no state.
    outputs : list of Tensor, or None
        The module's outputs for the test rows, batch by batch.
    stop_reason : str
        Why a listener stopped the fit; empty if none did.
    is_final : bool
        Whether a fit with more epochs would come to the same: it was stopped early, or its loss is
        no longer finite.
    """

    state: TrainState | None = None
    curve: dict = field(default_factory=dict)
    error: Exception | None = None
    outputs: list | None = None
    stop_reason: str = ""
    is_final: bool = False

    @property
    def lr(self):
        """The learning rate of the last step."""
        return self.curve["lr"][-1]
