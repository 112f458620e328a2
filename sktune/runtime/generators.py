"""The random generators that a whole process shares: the global ones of NumPy and torch."""

import numpy as np
import torch


def read_generators():
    """Return the states of the generators, for :func:`set_generators`."""
    return np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002


def set_generators(states):
    """Set the generators to states that :func:`read_generators` returned."""
    state_of_numpy, state_of_torch = states
    np.random.set_state(state_of_numpy)  # noqa: NPY002
    torch.set_rng_state(state_of_torch)


def _are_equal(one, other):
    """Tell whether two results of :func:`read_generators` are equal."""
    return _is_equal(one[0], other[0]) and torch.equal(one[1], other[1])


def _is_equal(one, other):
    """Tell whether two states of a NumPy generator are equal: nested dicts, arrays and numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return one == other


class Tracker:
    """Tells whether the generators have been drawn from.

    A question takes about 0.1 ms, most of it for NumPy's copy of its state.
    """

    def __init__(self):
        self.states = read_generators()

    def has_moved(self):
        """Tell whether anything has been drawn since the last call."""
        before = self.states
        self.states = read_generators()
        return not _are_equal(before, self.states)

    def go_back(self, states):
        """Undo what has been drawn since the generators were in these states."""
        set_generators(states)
        self.states = states


class Course:
    """The states of the generators between the fits of a task that was prepared.

    The training of a fit whose preparation drew random numbers is valid only if, at the fit's
    turn, the generators are in the states in which the preparation found them. They are not if a
    scorer, or a fit that was trained alone before it, has drawn more numbers.

    Parameters
    ----------
    states : tuple or None
        The states in which the preparation of the task began; None if it drew nothing, in which
        case all methods leave the generators alone.
    """

    def __init__(self, states):
        self.states = states

    def is_kept(self):
        """Tell whether the generators are in the states that the next fit expects."""
        return self.states is None or _are_equal(self.states, read_generators())

    def leave(self):
        """Let all further fits draw their own numbers."""
        self.states = None

    def begin(self, fit):
        """Let a fit that is trained alone draw from the states in which its preparation began."""
        if self.states is not None:
            set_generators(fit.before)
        self.expect(fit.after)

    def expect(self, states):
        """Set the states in which the next fit has to find the generators."""
        if self.states is not None:
            self.states = states

    def end(self, states):
        """Set the states that a preparation led to, since its draws are not repeated."""
        if self.states is not None:
            set_generators(states)
        self.expect(states)
