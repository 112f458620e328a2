"""Steps in one lane after the other, by the compiled kernels: an epoch of a lane in one call."""

from types import SimpleNamespace

import numpy as np
import torch

from sktune.engine.compiled.blocks import find_augmentation_blocker, train_blocks
from sktune.engine.compiled.program import find_program, read_data, read_order
from sktune.engine.steps.base import StepBackend
from sktune.runtime.threads import limited_threads


class CompiledSteps(StepBackend):
    """Steps that the compiled kernels take: known operations on a CPU, on one core."""

    name = "compiled"
    goes_lane_by_lane = True

    def __init__(self):
        self.program = None

    def blocker(self, specs, tables, options):
        """Return why the kernels cannot train the nets; else keep the program that trains them."""
        if options.product_dtype is not None:
            return "its products are of another type than its parameters"
        if any(any(spec.dropout) and not spec.sampling.has_seeded_masks for spec in specs):
            return "its dropout masks do not follow from its seed"
        has_penalties = any(spec.has_penalties for spec in specs)
        with limited_threads(options.n_threads):
            for spec in {spec.rows.table: spec for spec in specs}.values():
                self.program = find_program(
                    spec.module.module,
                    spec.loss.criterion,
                    spec.loss.match,
                    spec.optimizer.type,
                    spec.optimizer.options,
                    SimpleNamespace(rows=tables[spec.rows.table], sizes=spec.batch_sizes),
                    has_penalties=has_penalties,
                )
                if isinstance(self.program, str):
                    return self.program
                self.note_idle(self.program.idle, specs)
                if self.program.drops_by_function and not spec.sampling.has_seeded_masks:
                    return "its dropout masks do not follow from its seed"
                reason = self._find_augmentation_blocker(specs)
                if reason:
                    return reason
                if spec.n_outputs not in (None, self.program.n_outputs):
                    return "its module has another number of outputs than its targets need"
        return ""

    def _find_augmentation_blocker(self, specs):
        """Return why the kernels cannot train on the augmented rows of some fits, or ``""``."""
        augmenters = [spec.augmenter for spec in specs if spec.augmentation is not None]
        reasons = [find_augmentation_blocker(augmenter, self.program) for augmenter in augmenters]
        return next(filter(None, reasons), "")

    def prepare(self, lanes, options):
        """Bind the tensors of each lane to the kernels."""
        super().prepare(lanes, options)
        dtype = self.net.flat.numpy().dtype
        loss = self.program.loss
        self.data = {rows: read_data(rows, dtype, loss) for rows in {lane.rows for lane in lanes}}
        self._bind()

    def select(self, positions):
        """Go on with the lanes at some positions only."""
        super().select(positions)
        self._bind()

    def _bind(self):
        """Make a function for each lane that trains it for an epoch."""
        self.trainers = []
        self.buffers = self._stack_buffers()  # (L, S)
        for position, lane in enumerate(self.lanes):
            state = self.optimizer.state
            trainer = self.program.bind(
                self.net.flat[position].numpy(),
                self.net.flat_gradient[position].numpy(),
                self.buffers[position].numpy(),
                {name: tensor[position].numpy() for name, tensor in state.items()},
                self.data[lane.rows],
                lane.batches.sizes,
                lane.spec.seed,
                lane.spec.dropout,
                lane.spec.optimizer.options,
                (lane.spec.l1, lane.spec.l2),
                lane.spec.clips,
            )
            self.trainers.append(trainer)

    def _stack_buffers(self):
        """Return the buffers that steps change, flat and in the type of the parameters."""
        n_lanes = len(self.lanes)
        parts = [self.net.flat.new_empty(n_lanes, 0)]
        for buffer in self.program.buffers:
            parts.append(self.net.buffers[buffer.name].reshape(n_lanes, -1).to(self.net.flat.dtype))
        return torch.cat(parts, 1).contiguous()

    def _write_back_buffers(self):
        """Copy the buffers that steps have changed to where the net has them."""
        for name, start, size in self.program.buffers:
            buffer = self.net.buffers[name]
            buffer.copy_(self.buffers[:, start : start + size].view_as(buffer))

    def run_epoch(self, epoch, rates):
        """Train all lanes for an epoch; return the losses (L, n_steps)."""
        losses = np.zeros((len(rates), max(map(len, rates))))
        # (L, 1); the array shares the memory of the tensor: to write to it counts the steps
        steps_done = self.optimizer.t.numpy()
        for position, found in self._train_lanes(epoch, rates, steps_done):
            steps_done[position] += len(found)
            losses[position, : len(found)] = found
            # Losses that end before the lane's last step end with one that is not finite. Values
            # after the last step of a shorter lane are not read.
            losses[position, len(found) :] = found[-1]
        self._write_back_buffers()
        return losses

    def _train_lanes(self, epoch, rates, steps_done):
        """Train each lane for an epoch; yield its position, and the losses of its steps."""
        orders = {}
        augmented = {}
        for position, lane in enumerate(self.lanes):
            if lane.batches.augmenter is not None:
                augmented.setdefault(lane.stream, []).append(position)
                continue
            self.options.check()
            if lane.stream not in orders:
                orders[lane.stream] = read_order(lane.batches, epoch)
            yield (
                position,
                self.trainers[position](
                    int(steps_done[position, 0]),
                    orders[lane.stream],
                    np.array(rates[position]),
                    epoch,
                ),
            )
        for positions in augmented.values():
            self.options.check()
            losses = train_blocks(
                [self.trainers[position] for position in positions],
                [int(steps_done[position, 0]) for position in positions],
                [np.array(rates[position]) for position in positions],
                self.lanes[positions[0]].batches,
                epoch,
                self.program,
            )
            yield from zip(positions, losses, strict=True)
