"""What is drawn from the random generators that a whole process shares: NumPy's global one and torch's."""

import numpy as np
import torch


def read_generators():
    """Return the states of the generators, for :func:`set_generators`."""
    return np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002


def set_generators(states):
    """Put the generators into states that :func:`read_generators` returned."""
    of_numpy, of_torch = states
    np.random.set_state(of_numpy)  # noqa: NPY002
    torch.set_rng_state(of_torch)


def _are_equal(one, other):
    return _is_equal(one[0], other[0]) and torch.equal(one[1], other[1])


def _is_equal(one, other):
    """Tell whether two states of a generator of NumPy's are equal: dicts of numbers, arrays and dicts."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_equal(one[name], other[name]) for name in one)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


class Tracker:
    """Tells whether the generators have been drawn from. To ask takes 0.1 ms: NumPy copies its state slowly."""

    def __init__(self):
        self.states = read_generators()

    def has_moved(self):
        """Tell whether anything has been drawn since this was asked last."""
        before, self.states = self.states, read_generators()
        return not _are_equal(before, self.states)

    def go_back(self, states):
        """Undo what has been drawn since the generators were in these states."""
        set_generators(states)
        self.states = states


class Course:
    """Leads the generators through the fits of a task as they went when the fits were prepared.

    What was trained for a fit whose preparation drew random numbers holds only where the generators stand, when the
    fit's turn comes, as they stood then: a fit that is trained alone before it, or a scorer, may have drawn more.

    `states` are those in which the preparation of the task began; None if it drew nothing.
    """

    def __init__(self, states):
        self.states = states

    def is_kept(self):
        """Tell whether the generators stand where the next fit expects them."""
        return self.states is None or _are_equal(self.states, read_generators())

    def leave(self):
        """Give up: what follows draws for itself."""
        self.states = None

    def begin(self, fit):
        """Let a fit that is trained alone draw for itself, from where its preparation began."""
        if self.states is not None:
            set_generators(fit.before)
        self.expect(fit.after)

    def expect(self, states):
        """Take note of where the next fit has to find the generators."""
        if self.states is not None:
            self.states = states

    def end(self, states):
        """Let the generators stand where a preparation led, whose draws are not repeated."""
        if self.states is not None:
            set_generators(states)
        self.expect(states)
