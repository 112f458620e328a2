"""Steps in all lanes at once, by torch's own operations on stacked tensors."""

import torch

from sktune.engine.lanes import training_steps
from sktune.engine.steps.base import StepBackend
from sktune.engine.steps.loss import StackedLoss
from sktune.engine.steps.trial import try_step
from sktune.modules.structure import find_entanglement
from sktune.modules.tracing.links import name_parameter
from sktune.runtime.dtypes import wide_dtype
from sktune.runtime.gpu.transfers import fetch, send
from sktune.training.gradients.clipping import StackedClips
from sktune.training.penalties import add_stacked_penalties, list_skipped


class StackedSteps(StepBackend):
    """Steps that torch computes for all lanes at once.

    A module whose operations are known is computed layer by layer, any other under
    :func:`torch.func.vmap`.
    """

    name = "stacked"

    def blocker(self, specs, tables, options):
        """Return why torch cannot compute the nets together: a trial step tells.

        What it has found out of idle parameters is kept.
        """
        for spec in specs:
            reason = find_entanglement(spec.module.module)
            if reason:
                return f"its module cannot be fused: {reason}"
        module = specs[0].module.module
        reason, idle = try_step(specs, tables)
        self.note_idle(idle, specs)
        skipped = list_skipped(module, self.idle, has_penalties=self.has_penalties)
        return _find_padding(module, self.idle) or _find_types(module, skipped) or reason

    def prepare(self, lanes, options):
        """Stack the tensors of the lanes."""
        super().prepare(lanes, options)
        self.loss = StackedLoss(lanes[0].spec.loss, lanes[0].rows.target.dtype)
        # The type of columns that hold a value per lane.
        self.column_dtype = wide_dtype(self.net.flat.dtype)
        strengths = [(lane.spec.l1, lane.spec.l2) for lane in lanes]
        strengths = torch.tensor(strengths, dtype=torch.float64)  # (L, 2)
        self.penalties = None
        if strengths.any():
            self.penalties = send(strengths, self.net.flat.device, self.column_dtype)
        like = torch.empty(0, dtype=self.column_dtype, device=self.net.flat.device)
        self.clips = StackedClips([lane.spec.clips for lane in lanes], like)

    def select(self, positions):
        """Go on with the lanes at some positions only."""
        super().select(positions)
        if self.penalties is not None:
            self.penalties = self.penalties[send(positions, self.penalties.device, torch.long)]
        self.clips = self.clips.select(send(positions, self.net.flat.device, torch.long))

    def run_epoch(self, epoch, rates):
        """Train all lanes for an epoch; return the losses (L, n_steps)."""
        device = self.net.flat.device
        columns = self._stack_rates(rates)
        losses = torch.zeros(
            len(columns), len(self.lanes), dtype=self.column_dtype, device=device
        )  # (n_steps, L)
        for batch, parts in enumerate(training_steps(self.lanes, epoch)):
            self.options.check()
            for part in parts:
                step = (epoch, batch)
                if len(part.positions) == len(self.lanes):
                    losses[batch].copy_(self._take_step(part, step, columns[batch]))
                else:
                    self._take_part_step(part, step, columns[batch], losses[batch])
        return fetch([losses])[0].T.double().numpy()

    def _stack_rates(self, rates):
        """Return the learning rates of each step, as columns (L, 1)."""
        longest = max(map(len, rates))
        padded = [lane + lane[-1:] * (longest - len(lane)) for lane in rates]
        stacked = torch.tensor(padded, dtype=torch.float64).T.unsqueeze(2)  # (n_steps, L, 1)
        return send(stacked, self.net.flat.device, self.column_dtype).unbind()

    def _take_step(self, part, step, rates):
        """Take a step in all lanes; return their losses (L,)."""
        parts = (self.net, self.optimizer, self.penalties, self.clips)
        return self._compute_step(*parts, part, step, rates)

    def _take_part_step(self, part, step, rates, losses):
        """Take a step in some lanes: some folds have a row more in their last batch than others."""
        chosen = send(part.positions, self.net.flat.device, torch.long)
        net = self.net.select(part.positions)
        optimizer = self.optimizer.select(part.positions)
        penalties = None if self.penalties is None else self.penalties[chosen]
        parts = (net, optimizer, penalties, self.clips.select(chosen))
        losses[chosen] = self._compute_step(*parts, part, step, rates[chosen])
        self.net.put_back(part.positions, net)
        self.optimizer.put_back(part.positions, optimizer)

    def _compute_step(self, net, optimizer, penalties, clips, part, step, rates):
        """Take a step in the lanes of a net; return their losses (L,)."""
        outputs = net.forward(part.X, True, step)
        # (L,), (L, B, ...)
        loss, gradient = self.loss(outputs.detach(), part.target, part.weight)
        if part.other is not None:
            # (L,), (L, B, ...)
            other_loss, other_gradient = self.loss(outputs.detach(), part.other, part.other_weight)
            loss = loss + other_loss
            gradient = gradient + other_gradient
        gradient = net.gradient(outputs, gradient)  # (L, P)
        added = self.change_weights(net, optimizer, penalties, clips, gradient, rates)
        return loss if added is None else loss + added

    @staticmethod
    def change_weights(net, optimizer, penalties, clips, gradient, rates):
        """Change the weights of a net by the gradient (L, P) of the losses.

        Return what the penalties add to the losses (L,), None if there are no penalties.
        """
        added = None
        if penalties is not None:
            added = add_stacked_penalties(net.flat, net.weight_mask, gradient, penalties)
        clips(gradient)
        optimizer.step(net.flat, gradient, rates)
        return added


def _find_types(module, skipped):
    """Return why the parameters that are trained do not fit into one table, or ``""``."""
    named = module.named_parameters()
    dtypes = {p.dtype for name, p in named if p.requires_grad and name not in skipped}
    return "its parameters are of several types" if len(dtypes) > 1 else ""


def _find_padding(module, idle):
    """Return why an embedding of a module cannot be trained under vmap, or ``""``."""
    for name, part in module.named_modules():
        is_trained = name_parameter(name, "weight") not in idle
        if is_trained and getattr(part, "padding_idx", None) is not None:
            return "its embedding has a padding_idx, whose row vmap would train"
    return ""
