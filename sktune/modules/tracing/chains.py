"""A module as a chain of layers, however its ``forward`` is written."""

from copy import deepcopy

from sktune.modules.dropout import HashedDropout
from sktune.modules.structure import watch_settings
from sktune.modules.tracing.comparison import compare
from sktune.modules.tracing.links import LinkReader
from sktune.modules.tracing.operations import Unreadable
from sktune.modules.tracing.tracer import Untraceable, check_code
from sktune.runtime.seeds import seeded
from sktune.runtime.threads import limited_threads


def read_links(module):
    """Return the links of the chain that a module computes, or why it computes none.

    The module stays as it is: a copy of it is called, with a stand-in for a table, and with random
    numbers that no generator of the process is asked for.

    Parameters
    ----------
    module : nn.Module
        No hook must watch it or its parts.

    Returns
    -------
    links : tuple of Link, or str
    """
    try:
        # The seed is of no consequence: a forward that draws from it is not read.
        with limited_threads(1), seeded(0) as has_drawn:
            links = _read_copy(module)
            if has_drawn():
                raise Unreadable("its forward draws random numbers in a way of its own")
            compare(module, links)
    except (Unreadable, Untraceable) as error:
        return str(error)
    # whatever a user's module does
    except Exception as error:
        return f"its forward cannot be read ({type(error).__name__})"
    return links


def _read_copy(module):
    """Return the links of a module in training, which must be those of an evaluation."""
    check_code(module)
    copy = deepcopy(module)
    are_unchanged = watch_settings(copy)
    links = LinkReader(copy.train()).read()
    in_evaluation = LinkReader(copy.eval()).read()
    if not are_unchanged():
        raise Unreadable("its module remembers its calls")
    # dropout may stand under `if self.training`
    if _without_dropout(copy, links) != _without_dropout(copy, in_evaluation):
        raise Unreadable("its forward computes something else in training than in evaluation")
    return tuple(links)


def _without_dropout(module, links):
    """Return what can be compared of the links that are no dropout."""
    kept = []
    for link in links:
        layer = module.get_submodule(link.name) if link.layer is None else link.layer
        if not isinstance(layer, HashedDropout):
            kept.append(link.name if link.layer is None else repr(layer))
    return kept
