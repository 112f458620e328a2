"""Recorded steps of one module and one of torch's optimizers: what a fit alone trains by on a GPU.

To launch the kernels of a small step one by one takes longer than the kernels do.
"""

import torch

from sktune.engine.lanes import Lane
from sktune.engine.sampling import SeededSampling
from sktune.engine.specs import FitSpec, InitialModule, OptimizerSpec, RowSet
from sktune.engine.steps import recorded
from sktune.engine.steps.base import StepOptions
from sktune.modules.function_masks import FUNCTION_INDEX
from sktune.training.optimizer_state import count_steps, has_one_count, open_state

_TABLE = "rows"


def find_lone_steps(module, optimizer, loss, schedule, batches, **settings):
    """Return what trains a module on a GPU by recorded steps, or the reason why nothing does.

    Parameters
    ----------
    module : nn.Module
    optimizer : torch.optim.Optimizer
        With one group of parameters.
    loss : LossSpec
    schedule : LRSchedule
    batches : Batches
    **settings
        ``n_epochs``, ``seed``, ``dropout``, ``l1``, ``l2``, ``clips``, ``n_outputs`` and
        ``runs_user_code`` as in :class:`~sktune.engine.specs.FitSpec`, and ``batch_size``.

    Returns
    -------
    steps : LoneSteps or str
    """
    batch_size = settings.pop("batch_size")
    if batches.augmenter is not None:
        return "its rows are augmented"
    (group,) = optimizer.param_groups
    spec = FitSpec(
        module=InitialModule(module),
        loss=loss,
        optimizer=OptimizerSpec(type(optimizer), {n: v for n, v in group.items() if n != "params"}),
        schedule=schedule,
        sampling=SeededSampling(batch_size, batches.seed is not None),
        rows=RowSet(_TABLE, batches.n_rows, batches.indices),
        device=str(batches.rows.device),
        **settings,
    )
    if spec.batch_sizes != batches.sizes:
        return "its batches are not those of sktune's nets"
    backend = recorded.RecordedSteps()
    tables = {_TABLE: batches.rows}
    reason = backend.blocker([spec], tables, StepOptions())
    if reason:
        return reason
    with torch.no_grad():
        backend.prepare([Lane(spec, None, tables)], StepOptions())
    if not has_one_count(optimizer, _list_learned(backend, module)):
        return "a part of its parameters has been without a gradient for a time"
    return LoneSteps(backend, module, optimizer) if backend.recorder else backend.reason


def _list_learned(backend, module):
    """Return the parameters of a module that get a gradient, in their order."""
    named = dict(module.named_parameters())
    return [named[name] for name in backend.net.names]


class LoneSteps:
    """Trains the module that it was made for, epoch by epoch.

    Parameters
    ----------
    backend : RecordedSteps
        Of a single lane.
    module : nn.Module
    optimizer : torch.optim.Optimizer
    """

    def __init__(self, backend, module, optimizer):
        self.backend = backend
        self.module = module
        self.optimizer = optimizer
        # how the counts of the optimizer's steps stood when they were last written here
        self.counts = None
        self.n_steps = 0
        # the dropout layers that a step calls, by their numbers
        self.dropout_calls = []

    def run_epoch(self, epoch, rates):
        """Train for an epoch; return the loss of each step, None if the steps are not recorded.

        Parameters, buffers, gradients and the optimizer's state end as torch's own steps leave
        them.
        """
        backend = self.backend
        self._read()
        if not backend.recorder.runs and not self._record(epoch):
            return None
        losses = backend.run_epoch(epoch, [rates])
        self._write(len(rates))
        return losses[0].tolist()

    def _record(self, epoch):
        try:
            calls = self.backend.recorder.record(epoch)
        except recorded.RecordingError as error:
            self.backend.reason = str(error)
            return False
        self.backend.has_recorded = True
        self.dropout_calls = [layer for layer, _ in calls if layer != FUNCTION_INDEX]
        return True

    def _parts(self):
        """Return pairs: tensors of the backend's, and those of module and optimizer alike."""
        net = self.backend.net
        learned = _list_learned(self.backend, self.module)
        sizes = [p.numel() for p in learned]
        named = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        pairs = [(leaf[0], named[name]) for name, leaf in net.leaves.items()]
        pairs += [(buffer[0], named[name]) for name, buffer in net.buffers.items()]
        for name, flat in self.backend.optimizer.state.items():
            # a single number is that of all parameters
            is_number = self.backend.optimizer.rule.state[name].is_scalar
            parts = [flat[0]] * len(learned) if is_number else flat[0].split(sizes)
            for p, part in zip(learned, parts, strict=True):
                # torch makes no entry for a parameter without state
                kept = self.optimizer.state.get(p, {}).get(name)
                if kept is not None:
                    pairs.append((part.view(kept.shape), kept))
        return learned, pairs

    @torch.no_grad()
    def _read(self):
        """Take weights and state from module and optimizer: callbacks may have changed them."""
        counts = self._find_counts()
        if self.counts is None or counts != self.counts:
            learned = _list_learned(self.backend, self.module)
            self.n_steps, _ = open_state(self.optimizer, learned)
            self.backend.optimizer.t.fill_(self.n_steps)
            self.backend.optimizer.update = None
        _, pairs = self._parts()
        for ours, theirs in _by_dtype(pairs):
            torch._foreach_copy_(ours, theirs)

    @torch.no_grad()
    def _write(self, n_steps):
        """Give weights, gradients and state to module and optimizer."""
        learned, pairs = self._parts()
        gradients = {name: g[0] for name, g in self.backend.net.gradients.items()}
        for name, p in self.module.named_parameters():
            if name in gradients:
                p.grad = torch.empty_like(p) if p.grad is None else p.grad
                pairs.append((gradients[name], p.grad))
            elif p.requires_grad:
                p.grad = None
        for ours, theirs in _by_dtype(pairs):
            torch._foreach_copy_(theirs, ours)
        count_steps(self.optimizer, learned, n_steps)
        self.n_steps += n_steps
        self.counts = self._find_counts()

    def _find_counts(self):
        """Return what tells whether the counts of steps have been written by somebody else."""
        steps = [state.get("step") for state in self.optimizer.state.values()]
        return [(id(step), step._version) for step in steps if torch.is_tensor(step)]


def _by_dtype(pairs):
    """Yield two lists of tensors for each type."""
    groups = {}
    for ours, theirs in pairs:
        ours_, theirs_ = groups.setdefault(theirs.dtype, ([], []))
        ours_.append(ours)
        theirs_.append(theirs)
    return groups.values()
