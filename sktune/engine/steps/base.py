"""The interface of a way to take training steps: five methods."""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch

from sktune.engine.steps.network import StackedNet
from sktune.engine.steps.optimizers import StackedOptimizer
from sktune.training.penalties import is_penalized


class Stopped(BaseException):
    """Training was told to stop."""


@dataclass
class StepOptions:
    """How steps are computed.

    Parameters
    ----------
    n_threads : int
        The threads that torch computes with.
    product_dtype : torch.dtype or None
        The type of matrix products in training; None is that of the parameters.
    allows_tf32 : bool
        Whether a GPU may round the factors of products of float32 to TF32, in training.
    stop : threading.Event
        Once it is set, the training of a group ends at the next step.
    """

    n_threads: int = 1
    product_dtype: torch.dtype | None = None
    allows_tf32: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self):
        """Raise :class:`Stopped` if the training has been told to stop."""
        if self.stop.is_set():
            raise Stopped


class StepBackend(ABC):
    """A way to take training steps in many nets of one architecture.

    The planner makes one of these for fits that are alike (their ``group_key`` is equal), and asks
    it for its :meth:`blocker`; once more for a group that gets several threads. Each group gets a
    copy, and is trained by it: first :meth:`prepare`, then :meth:`run_epoch` for epoch after epoch,
    with :meth:`select` and :meth:`state` where lanes are done.

    Attributes
    ----------
    net : StackedNet
        The nets of all lanes, with their weights as they are now: they are validated by it.
    optimizer : StackedOptimizer
        The optimizers of all lanes.
    """

    # what the report calls this way
    name = ""
    # whether the lanes are trained one after the other, so that small groups cost nothing
    goes_lane_by_lane = False
    # the names of the parameters that the outputs do not depend on in training, as `blocker` has
    # found out
    idle = frozenset()
    # whether there are weights among them, which penalties train, and whether these nets have
    # penalties
    has_idle_weights = False
    has_penalties = False

    @abstractmethod
    def blocker(self, specs, tables, options):
        """Return why fits cannot take their steps this way, in the user's words; else ``""``.

        What is found out on the way may be kept in `self`, for :meth:`prepare`.
        """

    def note_idle(self, idle, specs):
        """Keep the names of the parameters that the outputs of fits do not depend on."""
        self.idle = frozenset(idle)
        named = specs[0].module.module.named_parameters()
        self.has_idle_weights = any(is_penalized(p.shape) for name, p in named if name in idle)
        self.has_penalties = any(spec.has_penalties for spec in specs)

    def prepare(self, lanes, options):
        """Make ready to train some lanes, each from where its state stands."""
        self.lanes = lanes
        self.options = options
        spec = lanes[0].spec
        modules = [lane.spec.module.module for lane in lanes]
        masks = spec.sampling.open_masks(lanes)
        function_masks = spec.sampling.open_function_masks(lanes)
        are_alike = all(lane.spec.has_penalties == self.has_penalties for lane in lanes)
        if self.has_idle_weights and not are_alike:
            raise ValueError(
                "where no layer uses a weight, fits must all have penalties or all have none, got "
                "both"
            )
        self.net = StackedNet(
            modules,
            masks,
            function_masks,
            options.product_dtype,
            idle=self.idle,
            has_penalties=self.has_penalties,
        )
        groups = [lane.spec.optimizer.options for lane in lanes]
        self.optimizer = StackedOptimizer(spec.optimizer.type, groups, self.net.flat)
        for position, lane in enumerate(lanes):
            if lane.state.weights is not None:
                self.net.load(position, lane.state.weights)
                self.optimizer.load(position, lane.state.optimizer)

    @abstractmethod
    def run_epoch(self, epoch, rates):
        """Train all lanes for an epoch, counted from 0.

        Parameters
        ----------
        epoch : int
        rates : list of list of float
            The learning rates of each lane's steps.

        Returns
        -------
        losses : ndarray of shape (L, n_steps)
            The loss of each step. Values after the last step of a shorter lane have no meaning.
        """

    def begin_epoch(self, epoch, rates):
        """Begin to train all lanes for an epoch, with the arguments of :meth:`run_epoch`.

        Returns
        -------
        read_losses : callable
            ``read_losses()`` waits until the epoch is over, and returns the losses. It is called
            before any other method.
        """
        losses = self.run_epoch(epoch, rates)
        return lambda: losses

    def launch_validation(self):
        """Launch the validation of all lanes after an epoch, if this way of steps can do that.

        Returns
        -------
        sums : Tensor (2, L) or None
            Sums over the validation rows, of the losses and of the right answers. It is read before
            the next epoch. None lets the group validate the nets.
        """
        return None

    def select(self, positions):
        """Go on with the lanes at some positions only."""
        self.lanes = [self.lanes[position] for position in positions]
        self.net = self.net.select(positions)
        self.optimizer = self.optimizer.select(positions)

    def held(self, positions):
        """Return where `net` and `optimizer` hold the lanes at some positions."""
        return list(positions)

    def state(self, position):
        """Return copies of a lane's weights and of its optimizer's state, each a dict by name."""
        return self.net.state(position), self._mark(self.optimizer.lane_state(position))

    def states(self, positions):
        """Return what :meth:`state` returns for several lanes; from a device it is on the CPU."""
        if self.net.flat.device.type == "cpu":
            return [self.state(position) for position in positions]
        held = self.held(positions)
        states = map(self._mark, self.optimizer.lane_states(held))
        return list(zip(self.net.states(held), states, strict=True))

    def _mark(self, state):
        """Return the state of an optimizer with a note of the parameters that it is of."""
        return state if self.net.learned is None else {**state, "learned": self.net.learned.clone()}

    def weights(self, positions):
        """Return copies of the weights of several lanes; from a device they are on the CPU."""
        held = self.held(positions)
        if self.net.flat.device.type == "cpu":
            return [self.net.state(position) for position in held]
        return self.net.states(held)

    def told(self):
        """Return how the steps were taken in the end, and why not otherwise: a dict by names."""
        return self.name, {}
