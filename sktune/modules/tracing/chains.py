"""A module as operations, and as a chain of layers, however its ``forward`` is written."""

from copy import deepcopy

from torch import nn

from sktune.modules.dropout import HashedDropout
from sktune.modules.structure import watch_settings
from sktune.modules.tracing.comparison import compare
from sktune.modules.tracing.links import FunctionDropout, Link, name_parameter, open_links
from sktune.modules.tracing.operations import Unreadable
from sktune.modules.tracing.reader import LinkReader
from sktune.modules.tracing.tracer import Untraceable, check_code
from sktune.runtime.seeds import seeded
from sktune.runtime.threads import limited_threads


def read_links(module, shape=None, *, takes_integers=False):
    """Return the operations that a module computes, or why they cannot be told.

    The module stays as it is: a copy of it is called, with a stand-in for a table, and with random
    numbers that no generator of the process is asked for.

    Parameters
    ----------
    module : nn.Module
        No hook must watch it or its parts.
    shape : tuple of int, default=None
        The shape of a row, such as (columns,). None if the layers must tell the columns.
    takes_integers : bool, default=False
        Whether the table is one of integers.

    Returns
    -------
    links : tuple of Link, or str
    """
    try:
        # The seed is of no consequence: a forward that draws from it is not read.
        with limited_threads(1), seeded(0) as has_drawn:
            links, shape = _read_copy(module, shape, takes_integers)
            if has_drawn():
                raise Unreadable("its forward draws random numbers in a way of its own")
            compare(module, links, shape, takes_integers=takes_integers)
    except (Unreadable, Untraceable) as error:
        return str(error)
    # whatever a user's module does
    except Exception as error:
        return f"its forward cannot be read ({type(error).__name__})"
    return links


def _read_copy(module, shape, takes_integers):
    """Return the links of a module in training, and the shape of a row of its input.

    The links must be those of an evaluation, too.
    """
    check_code(module)
    copy = deepcopy(module)
    are_unchanged = watch_settings(copy)
    reader = LinkReader(copy.train(), shape, takes_integers)
    links = reader.read()
    in_evaluation = LinkReader(copy.eval(), shape, takes_integers).read()
    if not are_unchanged():
        raise Unreadable("its module remembers its calls")
    # dropout may stand under `if self.training`
    if _without_dropout(copy, links) != _without_dropout(copy, in_evaluation):
        raise Unreadable("its forward computes something else in training than in evaluation")
    return tuple(links), shape or (reader.n_features,)


def _without_dropout(module, links):
    """Return what can be compared of the links that are no dropout."""
    kept = []
    # for each value, its number among those that are no dropout
    numbers = [0]
    for link, opened in zip(links, open_links(module, links), strict=True):
        sources = tuple(numbers[source] for source in link.sources)
        if isinstance(getattr(opened.layer, "layer", opened.layer), _DROPOUTS):
            numbers.append(sources[0])
            continue
        what = link.name if link.layer is None else repr(link.layer)
        kept.append((what, sources, link.columns, link.shape))
        numbers.append(len(kept))
    return kept


_DROPOUTS = (HashedDropout, FunctionDropout)


def find_break(module, links):
    """Return why links are no chain of layers, in the user's words; ``""`` if they are one.

    A chain applies layers one after the other, each linear layer once.
    """
    linears = []
    met = set()
    names = dict(module.named_parameters())
    for position, link in enumerate(open_links(module, links)):
        if link.sources != (position,):
            return f"it computes {link.name} of values that are not those just before"
        layer = getattr(link.layer, "layer", link.layer)
        if isinstance(layer, _DROPOUTS) and layer.by_channel:
            return f"it drops whole channels by {link.name}"
        if (
            layer is not link.layer
            or not isinstance(link.layer, nn.Module)
            or isinstance(link.layer, _NO_PART_OF_CHAINS)
        ):
            return f"it computes {link.name}, a {type(link.layer).__name__}"
        if isinstance(link.layer, nn.Linear):
            if link.name in linears:
                return f"its layer {link.name} is used twice, with the same weights"
            linears.append(link.name)
            own = [name_parameter(link.name, name) for name, _ in link.layer.named_parameters()]
            is_shared = not met.isdisjoint(map(id, link.layer.parameters()))
            # torch knows a parameter by its first name, which may be that of an idle layer
            if is_shared or not names.keys() >= set(own):
                return f"its layer {link.name} has tied weights"
            met.update(map(id, link.layer.parameters()))
    return "" if linears else "it has no linear layer"


# Layers that are read, but that chains do not hold.
_NO_PART_OF_CHAINS = (nn.BatchNorm1d, nn.LayerNorm)


def link_layers(layers):
    """Return layers that stand in a row, by their names, as links."""
    return tuple(Link(name, None, (position,)) for position, name in enumerate(layers))
