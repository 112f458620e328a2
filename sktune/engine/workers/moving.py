"""What fits need on another GPU than the one that their rows were sent to."""

from copy import copy, deepcopy
from dataclasses import replace

from sktune.engine.specs import InitialModule


class Copies:
    """Copies of tables, modules and criteria on other GPUs; each is made once."""

    def __init__(self):
        # by what was copied, and the device; the original is kept, so that nothing gets its id
        self._made = {}

    def move(self, specs, tables, device):
        """Return specs and tables that are alike on a device.

        Parameters
        ----------
        specs : list of FitSpec
        tables : dict of Rows
            The tables that the specs name, and others.
        device : torch.device
            With its number.

        Returns
        -------
        specs : list of FitSpec
        tables : dict of Rows
        """
        names = dict.fromkeys(spec.rows.table for spec in specs)
        if all(tables[name].device == device for name in names):
            return specs, tables
        tables = {name: self._copy(tables[name], device, self._move_rows) for name in names}
        moved = []
        for spec in specs:
            module = self._copy(spec.module.module, device, _move_module)
            criterion = self._copy(spec.loss.criterion, device, _move_module)
            loss = replace(spec.loss, criterion=criterion)
            moved.append(replace(spec, module=InitialModule(module), loss=loss))
        return moved, tables

    def _copy(self, thing, device, make):
        key = (id(thing), device)
        if key not in self._made:
            self._made[key] = (thing, make(thing, device))
        return self._made[key][1]

    def _move_rows(self, rows, device):
        moved = copy(rows)
        moved.device = device
        for name in ("X", "target", "weight"):
            part = getattr(rows, name)
            if hasattr(part, "device"):
                setattr(moved, name, self._copy_tensor(part, device))
        return moved

    def _copy_tensor(self, tensor, device):
        """Return a tensor on a device; folds may have one in common, and have it there, too."""
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, device)
        if key not in self._made:
            self._made[key] = (tensor, tensor.to(device))
        return self._made[key][1]


def _move_module(module, device):
    return deepcopy(module).to(device)
