"""What a store of trainings is asked for, and what it keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch

from sktune.engine.specs import FitResult, TrainState
from sktune.training.optimizers import OPTIMIZERS


@dataclass(frozen=True, eq=False)
class Record:
    """How a training stands after some epochs. Nothing of it may be changed.

    Parameters
    ----------
    epoch : int
        The epochs that are done.
    state : TrainState or None
        What the training goes on from; None after an error.
    curve : dict of list
        That of all epochs: see :class:`~sktune.engine.specs.FitResult`.
    is_final : bool
        Whether more epochs would change nothing: the fit was stopped early, or has failed.
    error : Exception or None
        How it has failed.
    outputs : list of Tensor, or None
        The outputs for the test rows, batch by batch.
    test : str
        The digest of the test rows and of their batch size; empty without outputs.
    """

    epoch: int
    state: TrainState | None
    curve: dict = field(default_factory=dict)
    is_final: bool = False
    error: Exception | None = None
    outputs: list | None = None
    test: str = ""

    @classmethod
    def of(cls, result, test=""):
        """Return the record of a result, or None if it says nothing that would be of use again.

        Parameters
        ----------
        result : FitResult
            Its state is one that can be gone on from, and its curve that of all epochs.
        test : str
            The digest of the test rows.
        """
        if result.error is not None and not result.is_final:
            return None
        return cls(
            epoch=len(result.curve["epoch"]),
            state=result.state,
            curve=result.curve,
            is_final=result.is_final,
            error=result.error,
            outputs=result.outputs,
            test=test if result.outputs is not None else "",
        )

    def answers(self, n_epochs):
        """Tell whether this is what a fit of so many epochs comes to."""
        return self.epoch == n_epochs or (self.is_final and self.epoch <= n_epochs)

    def result_for(self, spec):
        """Return the result of a fit that ends here."""
        curve = dict(self.curve)
        curve.pop("valid_batch_count", None)
        n_valid_batches = spec.rows.n_valid_batches
        if n_valid_batches is not None:
            curve["valid_batch_count"] = [n_valid_batches] * self.epoch
        outputs = None
        if spec.keeps_outputs and self.outputs is not None and self.test == spec.rows.test_digest:
            outputs = list(self.outputs)
        return FitResult(
            state=None if self.state is None else self.state.end(),
            curve=curve,
            error=copy_error(self.error),
            outputs=outputs,
            is_final=self.is_final,
        )

    def suits(self, spec):
        """Tell whether a training of this spec can stand here, as far as shapes tell."""
        if self.state is None:
            return True
        expected = spec.module.module.state_dict()
        kept = [self.state.weights, self.state.best_weights]
        for weights in kept[: 1 + (self.state.best_weights is not None)]:
            if weights is None or weights.keys() != expected.keys():
                return False
            for name, tensor in weights.items():
                if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
                    return False
        options = spec.optimizer.options
        names = OPTIMIZERS[spec.optimizer.type].list_kept_state(options)
        has_optimizer = {"step", *names} <= (self.state.optimizer or {}).keys()
        has_stopping = (self.state.stopping is None) == (spec.stopping is None)
        return has_optimizer and has_stopping and {"epoch", "train_loss", "lr"} <= self.curve.keys()

    def on(self, device):
        """Return this record with its state on a device."""
        state = self.state
        if state is None or all(t.device == torch.device(device) for t in state.weights.values()):
            return self
        moved = {}
        for part in ("weights", "optimizer", "best_weights"):
            tensors = getattr(state, part)
            if tensors is not None:
                moved[part] = {name: _move(value, device) for name, value in tensors.items()}
        return replace(self, state=replace(state, **moved))

    @property
    def n_bytes(self):
        """About how much memory it takes."""
        tensors = list(self.outputs or ())
        if self.state is not None:
            for part in (self.state.weights, self.state.optimizer, self.state.best_weights):
                tensors += (part or {}).values()
        sizes = [t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor)]
        n_numbers = sum(len(column) for column in self.curve.values())
        return sum(sizes) + 32 * n_numbers


class Store(ABC):
    """Keeps how trainings stand, by their keys.

    A key is the ``training_digest`` of a :class:`~sktune.engine.specs.FitSpec`, and more where
    results depend on more (see :func:`training_key`). A store is asked by threads of one process at
    once; each method may be called at any time.

    Attributes
    ----------
    is_durable : bool
        Whether later processes find what is kept.
    """

    is_durable = False

    @abstractmethod
    def find(self, key, n_epochs):
        """Return the record of a training that is of most use for a fit of so many epochs.

        Parameters
        ----------
        key : str
        n_epochs : int

        Returns
        -------
        record : Record or None
            One that answers the fit, if there is one; else that with most epochs, which are fewer
            than `n_epochs`; None if there is none.
        """

    @abstractmethod
    def put(self, records, is_checkpoint=False):
        """Keep records, all of them or, at worst, none.

        Parameters
        ----------
        records : list of tuple of (str, Record)
            Each with the key of its training.
        is_checkpoint : bool, default=False
            Whether the trainings are in progress, so that later records replace these.
        """

    def tell(self):  # noqa: B027
        """Warn of what went wrong since the last time; called where warnings reach the user."""

    def wants_checkpoints(self, seconds):
        """Tell whether trainings in progress are to be put, `seconds` after it was done last."""
        return False


def pick(epochs, n_epochs):
    """Return which of the epochs of a training's records is of most use for a fit.

    Parameters
    ----------
    epochs : iterable of int
        The epochs at which there is a record.
    n_epochs : int
        The epochs of the fit.

    Returns
    -------
    epoch : int or None

    Examples
    --------
    >>> pick([5, 10], 8), pick([5, 10], 10), pick([5], 4)
    (5, 10, None)
    """
    return max((epoch for epoch in epochs if epoch <= n_epochs), default=None)


def training_key(spec, precision=None, device_type=None):
    """Return the key of a fit's training in a store.

    Parameters
    ----------
    spec : FitSpec
    precision : str or None
        That of products, on which results depend.
    device_type : str or None
        Where it is trained, such as ``"cuda"``; None is the device of the spec.

    Raises
    ------
    TypeError
        If a part of the fit has no digest.
    """
    if device_type is not None and device_type != torch.device(spec.device).type:
        spec = replace(spec, device=device_type)
    return spec.training_digest if precision is None else f"{spec.training_digest}-{precision}"


def _move(value, device):
    return value.to(device) if isinstance(value, torch.Tensor) else value


def copy_error(error):
    """Return an equal error without a traceback; None for None."""
    return None if error is None else type(error)(*error.args)
