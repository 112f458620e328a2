"""Nets that are trained as one, and computed one after the other where that is faster."""

import torch


def count_outputs(convolutions, call):
    """Return the most numbers that one of some convolutions returns during ``call()``."""
    counts = [0]

    def note(layer, inputs, outputs):
        counts.append(outputs.numel())

    hooks = [layer.register_forward_hook(note) for layer in convolutions]
    try:
        with torch.no_grad():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return max(counts)


class KeptMasks:
    """The masks of a dropout layer in a step: drawn for all lanes at once, served lane by lane.

    Parameters
    ----------
    masks : LaneMasks or DrawnMasks
        Those of all lanes.
    """

    def __init__(self, masks):
        self.masks = masks
        self.lane = 0
        # by epoch, batch, layer and call
        self.drawn = {}

    def factors(self, shape, position, X):
        """Return what the units of the current lane are multiplied by: (1, *shape)."""
        if position not in self.drawn:
            self.drawn[position] = self.masks.factors(shape, position, X)
        return self.drawn[position][self.lane : self.lane + 1]
