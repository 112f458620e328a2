"""Augmentation by a function of the user's."""

import inspect

import torch
from torch import nn

from sktune.runtime.names import class_name
from sktune.runtime.seeds import AUGMENT, mix, seeded


class CallableAugmentation:
    """A function of the user's, called on each batch.

    torch's own generators are seeded for the call, so that it depends on the seed of the fit, the
    epoch and the batch alone.

    Parameters
    ----------
    function : callable
        ``function(X)`` returns the changed rows. If it has an argument ``y``, it gets the targets
        as the loss takes them, and returns a pair of rows and targets. If it has an argument
        ``generator``, it gets a generator of torch's on the device of X.
    """

    is_off = False
    mixes_rows = False

    def __init__(self, function):
        self.function = function
        arguments = _list_arguments(function)
        self.takes_target = "y" in arguments
        self.takes_generator = "generator" in arguments

    @property
    def name(self):
        """What the function is called in messages."""
        return getattr(self.function, "__name__", None) or class_name(self.function)

    def check_rows(self, shape, is_floating):
        """Do nothing: the function knows what it takes."""

    def call(self, batch, seed, epoch, number):
        """Return a changed batch.

        Parameters
        ----------
        batch : tuple
            (X, target, weight), without the target or the weight where there are none.
        seed : int
            The seed of the fit.
        epoch, number : int
            The numbers of the epoch and of the batch in it, from 0.

        Raises
        ------
        ValueError
            If the function returns something else than it should.
        """
        X, *others = batch
        key = mix(seed, AUGMENT, epoch, number)
        device = getattr(X, "device", "cpu")
        options = {}
        if self.takes_generator:
            options["generator"] = torch.Generator(device).manual_seed(key >> 1)
        if self.takes_target and others:
            options["y"] = others[0]
        with seeded(key, device):
            changed = self.function(X, **options)
        if "y" not in options:
            self._check(changed, X, "rows")
            return changed, *others
        if not isinstance(changed, tuple | list) or len(changed) != 2:
            raise ValueError(
                "augment must return a pair of rows and targets where it takes y, got "
                f"{type(changed).__name__} from {self.name}"
            )
        self._check(changed[0], X, "rows")
        self._check(changed[1], others[0], "targets")
        return *changed, *others[1:]

    def _check(self, changed, given, what):
        """Raise if the function has not returned as many rows as it was given."""
        if not isinstance(given, torch.Tensor):
            return
        if not isinstance(changed, torch.Tensor):
            found = type(changed).__name__
        elif changed.shape[:1] == given.shape[:1]:
            return
        else:
            found = f"shape {tuple(changed.shape)}"
        raise ValueError(
            f"augment must return a tensor of {len(given)} {what}, got {found} from {self.name}"
        )


def _list_arguments(function):
    """Return the names of the arguments of a function; of a module those of its forward."""
    if isinstance(function, nn.Module):
        function = function.forward
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
