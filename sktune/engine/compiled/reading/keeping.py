"""Reading of a module that is trained for an epoch after the other, and seldom changes meanwhile.

To read it takes as long as to train a small one for an epoch.
"""

from sktune.engine.compiled.reading.graph import GraphReader
from sktune.engine.compiled.reading.layers import Unknown
from sktune.engine.compiled.reading.rows import own_their_memory
from sktune.modules.reading import is_watched_by_all, read_table_links
from sktune.modules.snapshots import Snapshot
from sktune.modules.structure import find_entanglement

_NOT_READ = "its module has operations that the compiled kernels do not know"


def read_graph(module, X, *, has_penalties=False):
    """Return the :class:`Graph` of a module on rows such as X, or why the kernels cannot train it.

    Parameters
    ----------
    module : nn.Module
    X : Tensor (N, ...)
    has_penalties : bool, default=False
        Whether penalties train the weights that no layer uses.

    Returns
    -------
    graph : Graph or str
        A str tells the reason, in the user's words.
    """
    links = read_table_links(module, X)
    if isinstance(links, str):
        return f"{_NOT_READ}: {links}"
    entanglement = find_entanglement(module)
    if entanglement:
        return entanglement
    if not own_their_memory(module):
        return "its parameters are tied, empty or of several types"
    try:
        return GraphReader(module, links, X[0].numel(), has_penalties=has_penalties).read()
    except Unknown as error:
        return f"{_NOT_READ}: {error}"


class Kept:
    """What was read of a module, and the program that trains it: kept until something changes.

    It is of one fit; a copy of it, and what is pickled of it, is empty.
    """

    def __init__(self):
        self.snapshot = None
        self.settings = None
        self.graph = None
        self.program = None
        self.made_of = None

    def __reduce__(self):
        return Kept, ()

    def read(self, module, X, *, has_penalties=False):
        """Return what :func:`read_graph` does; read the module only if it has changed."""
        settings = (*X.shape[1:], X.is_floating_point(), has_penalties)
        is_known = self.snapshot is not None and settings == self.settings
        if is_known and not is_watched_by_all() and self.snapshot.is_of(module):
            return self.graph
        self.graph = read_graph(module, X, has_penalties=has_penalties)
        self.settings = settings
        # what is not trained by the kernels is read anew
        self.snapshot = None if isinstance(self.graph, str) else Snapshot(module)
        return self.graph

    def open(self, make, graph, loss, *others):
        """Return ``make(graph, loss, *others)``, or what it returned before for the same.

        Parameters
        ----------
        make : callable
        graph : Graph
        loss : Loss
        *others : objects that can be compared
        """
        before, self.made_of = self.made_of, (graph, loss, others)
        # tensors cannot be compared as a whole
        is_same = before is not None and before[0] is graph and loss.class_weight is None
        if not is_same or before[1:] != (loss, others):
            self.program = make(graph, loss, *others)
        return self.program
