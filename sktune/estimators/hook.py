"""The one way by which something outside of a net takes part in its fit."""


class FitHook:
    """Takes part in the fits of one net; this one does nothing, and the net trains itself.

    A net calls its hook at three points. What collects fits implements the first, and what hands
    trained fits back implements the other two:

    1. while it prepares a fit: :meth:`convert_table`, then :meth:`replace_training`;
    2. when a fit begins: :meth:`adopt`;
    3. when a part of the fitted net is needed that has not been built: :meth:`build_parts`, or for
       predictions :meth:`find_outputs`.

    A hook is set as the net's attribute ``_hook``. It is neither cloned nor pickled.
    """

    # Whether the net may forget the table as the user gave it once it is converted.
    forgets_given_table = False

    def adopt(self, net, X, fit_params):
        """Make `net` the result of a fit to X that was trained elsewhere; return whether it is."""
        return False

    def convert_table(self, net, X):
        """Return a checked table as the module takes it, or None to let the net convert it."""
        return None

    def replace_training(self, net, dataset, epochs, fit_params):
        """Take the arguments of the training loop; return whether the loop is not to be run."""
        return False

    def forget_outputs(self):
        """Free what :meth:`find_outputs` returns: it is no longer needed."""

    def forget_optimizer(self):
        """Free what only training would go on from, of a net whose parts are not built."""

    def has_unbuilt_parts(self):
        """Tell whether the net is fitted, but its module, optimizer and the like are not built."""
        return False

    def build_parts(self, net):
        """Give a fitted net the parts that have not been built."""

    def find_outputs(self, net, X):
        """Return the module's outputs for X in a list of batches, if they are known; else None."""
        return None


NO_HOOK = FitHook()

# The function that finds the hook of the surrounding context. It stands in a layer that knows it.
_FINDERS = []


def register_surrounding(find):
    """Let a function find the hook of fits whose net has none of its own.

    Parameters
    ----------
    find : callable
        Takes nothing, and returns a :class:`FitHook`.
    """
    _FINDERS.append(find)


def find_surrounding():
    """Return the hook of the surrounding context."""
    hooks = [find() for find in _FINDERS]
    return next((hook for hook in hooks if hook is not NO_HOOK), NO_HOOK)
