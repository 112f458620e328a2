"""One launch of the kernel for each epoch: what it reads, and how it is called."""

import threading
from contextlib import nullcontext

import numpy as np
import torch

from sktune.engine.steps.launched.columns import lane_columns, step_columns
from sktune.engine.steps.recording.plan import EpochPlan
from sktune.engine.steps.recording.run import Table
from sktune.modules.dropout import silence_below
from sktune.runtime.gpu.transfers import fetch, send
from sktune.runtime.seeds import DROPOUT, mix

# Triton need not know that several threads compile and launch.
_LAUNCHING = threading.Lock()


class LaunchError(RuntimeError):
    """A kernel could not be compiled or launched; its cause says why."""


class Launcher:
    """Trains the lanes of a group, all steps of an epoch in one launch.

    Parameters
    ----------
    backend : RecordedSteps
        Its members, net and optimizer stay the same ones.
    program : Program
    kernel : function of Triton's
    constants : Constants
        What the kernel is compiled for.
    """

    def __init__(self, backend, program, kernel, constants):
        self.backend = backend
        self.program = program
        self.kernel = kernel
        self.constants = constants
        self.plan = plan = EpochPlan(backend.members, pads=True)
        net = backend.net
        self.device = net.flat.device
        self.dtype = net.flat.dtype
        self.table = Table(plan.streams)
        most_rows = max(max(lane.batches.sizes) for lane in plan.streams)
        stages, memory_size = program.place(most_rows)
        self.memory = net.flat.new_empty(len(backend.members), memory_size)
        self.stages = self._send(stages)
        self.operations = self._send(program.operations)
        self.settings = self._send(program.settings)
        self.option = self._send(np.array(program.loss.options, dtype=np.float64))
        self.starts = self._send(self._find_starts())
        steps = [len(lane.batches.sizes) for lane in backend.members]
        self.n_steps = send(steps, self.device, torch.int32).unsqueeze(1)  # (L, 1)
        # the same for the host
        self.steps_ahead = torch.tensor(steps)
        # the lanes whose tables have been sent, by their rows in the net
        self.rows = None
        self.lane_tables = ()

    def _send(self, array):
        """Send an array; floating numbers in float64 become those of the parameters' type."""
        dtype = self.dtype if array.dtype == np.float64 else None
        return send(torch.from_numpy(np.ascontiguousarray(array)), self.device, dtype)

    def _find_starts(self):
        """Return where each step of each stream begins in the order of an epoch."""
        starts = np.zeros((len(self.plan.streams), self.plan.n_steps + 1), dtype=np.int32)
        for row, lane in zip(starts, self.plan.streams, strict=True):
            ends = np.cumsum(lane.batches.sizes)
            row[1 : 1 + len(ends)] = ends
        return starts

    def _send_lanes(self, rows):
        """Send the tables of the lanes that are trained."""
        lanes = [self.backend.members[row] for row in rows]
        limits = np.array(
            [[silence_below(p) for p in lane.spec.dropout] for lane in lanes], dtype=np.float64
        ).reshape(len(lanes), -1, 2)
        self.rows = list(rows)
        self.lane_tables = (
            self._send(np.array(rows, dtype=np.int32)),
            self._send(self.plan.stream_of.numpy()[rows].astype(np.int32)),
            self._send(np.array([len(lane.batches.sizes) for lane in lanes], dtype=np.int32)),
            self._send(np.stack([lane_columns(lane.spec, self.program.rule) for lane in lanes])),
            self._send(limits[:, :, 0].astype(np.int32)),
            self._send(limits[:, :, 1]),
        )

    def begin_epoch(self, epoch, rates, counts):
        """Train the lanes that are not done for an epoch.

        Parameters
        ----------
        epoch : int
        rates : list of list of float
            The learning rates of each lane's steps.
        counts : list of int
            The steps that each of the members has taken before.

        Returns
        -------
        read_losses : callable
            ``read_losses()`` waits for the losses (n, n_steps).

        Raises
        ------
        LaunchError
            If the kernel could not be launched. Nothing has changed then.
        """
        if self.rows != self.backend.rows:
            self._send_lanes(self.backend.rows)
        lanes = [self.backend.members[row] for row in self.rows]
        numbers = np.zeros((len(lanes), self.plan.n_steps, 3))
        for row, lane, found, own in zip(self.rows, lanes, numbers, rates, strict=True):
            found[: len(own)] = step_columns(lane.spec, self.program.rule, own, counts[row])
        keys = [_as_int64(mix(lane.spec.seed, DROPOUT, epoch)) for lane in lanes]
        places, others = self.table.find(send(self._find_orders(epoch), self.device))
        losses = self.memory.new_zeros(len(lanes), self.plan.n_steps)
        self._launch(places, others, send(keys, self.device), self._send(numbers), losses)
        self._count(self.backend.optimizer)
        return lambda: fetch([losses])[0].double().numpy()

    def _count(self, optimizer):
        """Count the steps of an epoch, also for recorded steps, which may follow."""
        optimizer.t += self.n_steps
        optimizer.ahead += self.steps_ahead
        if optimizer.fused is not None:
            optimizer.fused.steps.copy_(optimizer.t[0, 0])

    def _find_orders(self, epoch):
        """Return the rows of each stream in their order, filled up with 0: a LongTensor (S, N)."""
        orders = [self.plan.order_of(n, epoch) for n in range(len(self.plan.streams))]
        return torch.nn.utils.rnn.pad_sequence(orders, batch_first=True)

    def _launch(self, places, others, keys, numbers, losses):
        """Launch the kernel once."""
        net, optimizer = self.backend.net, self.backend.optimizer
        rows, streams, n_steps, columns, thresholds, scales = self.lane_tables
        state = [*optimizer.state.values(), net.flat][:2]
        weight = net.flat if self.table.weight is None else self.table.weight
        arguments = (
            *(net.flat, *state, self.memory, net.flat.shape[1], self.memory.shape[1]),
            *(self.table.X, self.table.target, weight),
            *(places, others, self.starts, places.shape[1], self.plan.n_steps),
            *(rows, streams, n_steps, keys, columns, numbers),
            *(thresholds, scales, thresholds.shape[1]),
            *(self.stages, len(self.stages), self.operations, self.settings),
            *(self.option, losses),
        )
        is_on_gpu = self.device.type == "cuda"
        try:
            with _LAUNCHING, torch.cuda.device(self.device) if is_on_gpu else nullcontext():
                launch = self.kernel[(len(self.rows),)]
                launch(*arguments, **vars(self.constants), **self.constants.options)
        except Exception as error:
            raise LaunchError from error


def _as_int64(word):
    """Read 64 bits as an integer with a sign, which is what a LongTensor holds."""
    return word - (1 << 64) if word >= 1 << 63 else word
