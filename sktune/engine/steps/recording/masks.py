"""The dropout masks of recorded steps: hashed within the recording, for all steps at once."""

import torch

from sktune.runtime.gpu.transfers import resend
from sktune.runtime.seeds import mask_key, random_int16


class NotedCalls:
    """Takes note of the calls of dropout layers in a step that is tried; gives each a mask."""

    def __init__(self):
        # how many numbers a lane needs, by (layer, call)
        self.widths = {}

    def numbers(self, masks, position, n, device):
        """Return numbers of no meaning for a call, which is noted."""
        _, _, layer, call = position
        self.widths[layer, call] = n
        n_seeds = len(masks.distinct_seeds)
        return torch.zeros(n_seeds, n, dtype=torch.int16, device=device)


class HeldMasks:
    """The random numbers of some steps, from keys that are sent before each replay.

    Parameters
    ----------
    masks : dict of LaneMasks and LaneFunctionMasks
        Those of each dropout layer, and of calls of functions, by their index.
    calls : iterable of tuple
        The (layer, call) that a step makes, from :class:`NotedCalls`.
    n_steps : int
    device : torch.device
    """

    def __init__(self, masks, calls, n_steps, device):
        self.masks = masks
        self.n_steps = n_steps
        self.keys = {}
        for layer, call in calls:
            shape = (n_steps, len(masks[layer].distinct_seeds), 2)
            self.keys[layer, call] = torch.zeros(shape, dtype=torch.int32, device=device)
        # the numbers of all steps, while they are recorded
        self.made = {}

    def numbers(self, masks, position, n, device):
        """Return the numbers (distinct seeds, n) of a call in a step, counted from 0."""
        _, step, layer, call = position
        if (layer, call) not in self.made:
            keys = self.keys[layer, call]
            bits = random_int16(keys.view(-1, 2), n)
            self.made[layer, call] = bits.view(*keys.shape[:2], n)
        return self.made[layer, call][step]

    def send(self, epoch, first_step):
        """Send the keys of the steps of an epoch from `first_step` on."""
        for (layer, call), keys in self.keys.items():
            seeds = self.masks[layer].distinct_seeds
            steps = range(first_step, first_step + self.n_steps)
            found = [[mask_key(s, epoch, step, layer, call) for s in seeds] for step in steps]
            resend(found, keys)
