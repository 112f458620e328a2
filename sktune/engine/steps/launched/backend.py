"""Steps of chains that a GPU takes in one launch for each epoch, by a kernel of Triton's.

A program of the kernel trains a lane: the tables of its net stay close to it in the caches of the
device, and nothing waits for the host between the steps.
"""

from functools import partial
from time import perf_counter

import numpy as np
import torch
from scipy import sparse

from sktune.engine.steps.launched import choice
from sktune.engine.steps.launched.choice import Choice
from sktune.engine.steps.launched.constants import choose_constants
from sktune.engine.steps.launched.launcher import Launcher, LaunchError
from sktune.engine.steps.launched.loading import load_kernel
from sktune.engine.steps.launched.program import Unknown, read_program
from sktune.engine.steps.recorded import RecordedSteps
from sktune.engine.steps.stacked import StackedSteps

# The most numbers of a table (rows of a batch, features): of larger products torch makes better
# use of a device than a kernel whose programs do not share a lane.
_LARGEST = 1 << 18
# The most bytes that these tables take in all lanes of a group.
_MOST_BYTES = 1 << 30


def find_device_blocker(spec):
    """Return why the kernel is not launched where a fit is computed, or ``""``."""
    if not next(spec.module.module.parameters()).is_cuda:
        return "a kernel is launched on a GPU only"
    return ""


class LaunchedSteps(RecordedSteps):
    """Steps that a GPU takes in one launch for each epoch; recorded ones where these are faster.

    If a launch fails, the process goes on by recorded steps.
    """

    name = "launched"

    def blocker(self, specs, tables, options):
        """Return why the kernel cannot train the nets; else keep the program that trains them."""
        reason = find_device_blocker(specs[0]) or _find_settings_blocker(specs, options)
        if reason:
            return reason
        try:
            self.kernel = load_kernel()
            for spec in {spec.rows.table: spec for spec in specs}.values():
                rows = tables[spec.rows.table]
                _check_rows(spec, rows)
                self.program = read_program(spec, rows)
        except (ImportError, Unknown) as error:
            return str(error)
        most_rows = max(max(spec.batch_sizes) for spec in specs)
        if most_rows * max(self.program.widths) > _LARGEST:
            return "its layers or batches are so large that torch is faster"
        return StackedSteps.blocker(self, specs, tables, options)

    def prepare(self, lanes, options):
        """Stack the tensors of the lanes, and be ready to launch."""
        super().prepare(lanes, options)
        # the steps that each of the members has taken
        self.counts = [_count_steps(lane) for lane in lanes]
        self.launcher = None
        self.has_launched = False
        self.constants = choose_constants(self.program, lanes, allows_tf32=options.allows_tf32)
        kernel = (self.net.flat.device, self.net.flat.dtype, self.constants)
        # as many lanes as another group, or less than twice as many, count as equally many
        self.obstacle = self._find_memory_obstacle()
        self.choice = Choice((*kernel, self.program.widths, len(lanes).bit_length()), kernel)

    def _find_memory_obstacle(self):
        """Return why the lanes are not launched together, or ``""``."""
        _, n = self.program.place(max(max(lane.batches.sizes) for lane in self.lanes))
        n_bytes = len(self.lanes) * n * self.net.flat.element_size()
        if n_bytes <= _MOST_BYTES:
            return ""
        return f"what its layers compute takes {n_bytes >> 20} MiB in all lanes of the group"

    def select(self, positions):
        """Go on with the lanes at some positions only."""
        before = self.members
        rows = self.held(positions)
        super().select(positions)
        if self.members is not before:
            self.counts = [self.counts[row] for row in rows]
            self.launcher = None

    def told(self):
        """Return how the steps were taken in the end, and why not otherwise."""
        reason = self.obstacle or self.choice.explain()
        if self.has_launched:
            return self.name, {RecordedSteps.name: reason}
        steps, blockers = super().told()
        # the base class calls what was recorded by the name of this one
        steps = RecordedSteps.name if self.has_recorded else steps
        return steps, {self.name: reason, **blockers}

    def begin_epoch(self, epoch, rates):
        """Launch the steps of an epoch; return a function that waits for their losses."""
        n_epochs = max(lane.spec.n_epochs for lane in self.lanes) - epoch
        began = perf_counter()
        read_losses = None
        if not self.obstacle and self.choice.launches(n_epochs):
            read_losses = self._launch(epoch, rates)
        self.has_launched = read_losses is not None
        if read_losses is None:
            read_losses = super().begin_epoch(epoch, rates)
        way = self.name if self.has_launched else RecordedSteps.name
        if not self.obstacle and self.choice.measures(way):
            # what other groups compute until the losses are asked for is not to be counted
            losses = read_losses()
            read_losses = partial(np.asarray, losses)
            self.choice.note(way, perf_counter() - began)
        self.n_epochs_done = epoch + 1
        self.counts = [
            n + len(lane.batches.sizes) for n, lane in zip(self.counts, self.members, strict=True)
        ]
        return read_losses

    def launch_validation(self):
        """Launch the validation of all lanes, where steps have been recorded."""
        has_recordings = self.recorder is not None and bool(self.recorder.runs)
        return super().launch_validation() if has_recordings else None

    def _launch(self, epoch, rates):
        """Begin an epoch by a launch; return None if it fails: nothing has changed then."""
        self.options.check()
        generators = [lane.generator for lane in self.members if lane.generator is not None]
        states = [generator.get_state() for generator in generators]
        try:
            if self.launcher is None:
                self.launcher = Launcher(self, self.program, self.kernel, self.constants)
            return self.launcher.begin_epoch(epoch, rates, self.counts)
        except LaunchError as error:
            choice.FAILURES.note(error.__cause__)
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            return None


def _count_steps(lane):
    """Return how many steps a lane has taken before."""
    return 0 if lane.state.optimizer is None else int(lane.state.optimizer["step"])


def _find_settings_blocker(specs, options):
    """Return why the kernel is not asked, or ``""``."""
    if choice.mode == "0":
        return "launches are switched off (SKTUNE_LAUNCHED=0)"
    if choice.FAILURES.reason:
        return choice.FAILURES.reason
    if options.product_dtype is not None:
        return "its products are of another type than its parameters"
    if any(spec.augmentation is not None for spec in specs):
        return "its rows are augmented"
    if any(spec.clips for spec in specs):
        return "its gradients are clipped"
    if any(any(spec.dropout) and not spec.sampling.has_seeded_masks for spec in specs):
        return "its dropout masks do not follow from its seed"
    return ""


def _check_rows(spec, rows):
    """Raise :class:`Unknown` unless the kernel can read a table."""
    dtypes = {p.dtype for p in spec.module.module.parameters()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        raise Unknown("its parameters are not of float32 or float64")
    if sparse.issparse(rows.X) or rows.X.ndim != 2 or rows.X.dtype not in dtypes:
        raise Unknown("its rows are no dense table of the parameters' type")
