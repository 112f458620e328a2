"""Who listens to a fit: what nobody looks at need not be put together."""

from skorch.callbacks import BatchScoring, Callback, EpochScoring, PrintLog
from skorch.net import NeuralNet


class QuietLog(PrintLog):
    """skorch's table of losses, which is not put together where nobody reads it."""

    def on_epoch_end(self, net, **kwargs):
        """Print a row if the net is verbose, or if somebody takes the rows otherwise."""
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


def has_own(hook, listener):
    """Tell whether a net or a callback has a hook other than the empty one of skorch's base class."""
    base = NeuralNet if isinstance(listener, NeuralNet) else Callback
    return hook in vars(listener) or getattr(type(listener), hook, None) is not getattr(base, hook)


def hears_batches(net, training, hooks=("on_batch_begin", "on_batch_end")):
    """Tell whether anyone looks at a net's batches, or has other `hooks`; skorch's scores look at those of one kind."""
    scores = (EpochScoring, BatchScoring)
    callbacks = [
        c for _, c in net.callbacks_ if not (isinstance(c, scores) and c.on_train != training)
    ]
    return any(has_own(hook, listener) for hook in hooks for listener in [net, *callbacks])


def hears_own_batches(net):
    """Tell whether a callback of the user's, or the net's own class, looks at single validation batches."""
    default = {name for name, _ in net.get_default_callbacks()}
    callbacks = [c for name, c in net.callbacks_ if name not in default]
    callbacks = [
        c for c in callbacks if not (isinstance(c, EpochScoring | BatchScoring) and c.on_train)
    ]
    return any(
        has_own(hook, listener)
        for hook in ("on_batch_begin", "on_batch_end")
        for listener in [net, *callbacks]
    )
