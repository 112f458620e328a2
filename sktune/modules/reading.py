"""What a module computes, where its layers tell."""

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from sktune.modules.activations import ACTIVATIONS
from sktune.modules.dropout import HashedDropout
from sktune.modules.mlp import MLP
from sktune.modules.structure import is_watched_tensor
from sktune.modules.tracing.chains import find_break, link_layers
from sktune.modules.tracing.links import open_layers, open_links
from sktune.modules.tracing.memory import find_links
from sktune.modules.tracing.values.pools import POOLS

_NO_LAYERS = "it is a single layer of another kind"
# Layers with parameters that are read, and those of them that a chain may hold beside.
_NORMS = (nn.BatchNorm1d, nn.LayerNorm)
_READ = (nn.Linear, nn.Embedding, *_NORMS, nn.BatchNorm2d, nn.Conv1d, nn.Conv2d)
# The names of the parameters of layers in a sequence.
_LEARNED = ("weight", "bias")


def find_chain(module):
    """Return the layers of a chain: a module that applies simple layers one after the other.

    It does not matter how the module is written: its ``forward`` is traced.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    layers : dict of str to nn.Module, or None
        Linear layers, activations and dropout, in their order, by their name in the module, and at
        most a softmax after these. None if the module is not, or not certainly, a chain without
        frozen parameters. Parameters of other layers, which are not called, are idle.
    """
    layers = read_chain(module)
    return None if isinstance(layers, str) else layers


def read_chain(module):
    """Return what :func:`find_chain` does, or why the module is no chain, in the user's words."""
    layers = find_sequence(module)
    if layers is not None and not _are_tied(layers.values()):
        return layers
    reason = _find_reason(module, (nn.Linear,))
    if reason:
        return reason
    links = find_links(module)
    if not isinstance(links, str):
        reason = find_break(module, links)
    return reason or (links if isinstance(links, str) else open_layers(module, links))


def read_links(module, shape, *, takes_integers=False):
    """Return the operations that a module computes, or why they are not known.

    Parameters
    ----------
    module : nn.Module
    shape : tuple of int
        That of a row of its input, such as (columns,).
    takes_integers : bool, default=False
        Whether its input is a table of integers.

    Returns
    -------
    links : list of OpenLink, or str
        A str tells the reason, in the user's words.
    """
    layers = find_sequence(module, _NORMS) if len(shape) == 1 else None
    if layers is not None:
        return open_links(module, link_layers(layers))
    reason = _find_reason(module, _READ)
    if reason:
        return reason
    links = find_links(module, shape, takes_integers=takes_integers)
    return links if isinstance(links, str) else open_links(module, links)


def _find_reason(module, known):
    """Return why a module need not be traced, in the user's words; ``""`` if it may be read.

    `known` are the classes of layers with parameters that are read.
    """
    if not isinstance(module, nn.Module):
        return "it is no module of torch's"
    if any(map(is_watched, module.modules())):
        return "a hook, or a method that was replaced, watches it"
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    if frozen:
        return f"its parameter {frozen[0]} is frozen"
    for name, part in module.named_modules():
        # A large module of other layers need not be traced. What computes with parameters of a
        # user's class is found by tracing.
        has_parameters = any(True for _ in part.parameters(recurse=False))
        is_torchs = type(part).__module__.startswith("torch.")
        if has_parameters and is_torchs and type(part) not in known:
            return f"its layer {name} is a {type(part).__name__}" if name else _NO_LAYERS
    return ""


def find_sequence(module, others=()):
    """Return the layers of an MLP, an ``nn.Sequential`` or a bare ``nn.Linear``, without tracing.

    Parameters
    ----------
    module : nn.Module
    others : tuple of subclasses of nn.Module, default=()
        Layers that may stand among those of a chain.

    Returns
    -------
    layers : dict of str to nn.Module, or None
        As in :func:`find_chain`.
    """
    layers = {"": module} if type(module) is nn.Linear else _list_sequence(module)
    if layers is None:
        return None
    if not all(type(layer) in others or _is_simple(layer) for layer in layers.values()):
        return None
    known = [getattr(layer, name, None) for layer in layers.values() for name in _LEARNED]
    if not {id(p) for p in module.parameters()} <= set(map(id, known)):
        return None
    are_trained = [p.requires_grad for p in module.parameters()]
    if not are_trained or not all(are_trained):
        return None
    return None if any(map(is_watched, module.modules())) else layers


def _list_sequence(module):
    """Return the layers of an MLP or of an ``nn.Sequential`` by name, or None."""
    is_mlp = type(module) is MLP
    chain = module.layers if is_mlp else module
    if type(chain) is not nn.Sequential or not len(chain):
        return None
    prefix = "layers." if is_mlp else ""
    layers = {prefix + name: layer for name, layer in chain.named_children()}

    # `named_children` leaves out a layer that stands in the chain a second time.
    if len(layers) != len(chain):
        return None
    # Beside the layers there must be nothing but the chain, and the MLP around it.
    n_around = 2 if is_mlp else 1
    return layers if len(list(module.modules())) == len(layers) + n_around else None


def _are_tied(layers):
    """Tell whether layers have parameters in common."""
    parameters = [id(p) for layer in layers for p in layer.parameters()]
    return len(set(parameters)) < len(parameters)


def _is_simple(layer):
    """Tell whether a layer is one that a chain may hold."""
    if getattr(layer, "inplace", False):
        return False
    if isinstance(layer, HashedDropout):
        return not layer.by_channel
    return type(layer) in (nn.Linear, *_list_activation_layers())


def _list_activation_layers():
    return [activation.layer for activation in ACTIVATIONS.values()]


def find_width(module, rows=None):
    """Return the greatest number of outputs of a layer, or None if the layers are not known.

    Parameters
    ----------
    module : nn.Module
    rows : Tensor (N, F), default=None
        What it takes, where that is at hand.
    """
    is_known = type(module) is MLP or find_chain(module) is not None
    if not is_known and isinstance(rows, torch.Tensor) and rows.ndim == 2:
        is_known = not isinstance(read_table_links(module, rows), str)
    if not is_known:
        return None
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return max((layer.out_features for layer in linears), default=1)


def read_table_links(module, X):
    """Return what :func:`read_links` does for a table (N, F), or for rows (N, ...)."""
    return read_links(module, tuple(X.shape[1:]), takes_integers=not X.is_floating_point())


def is_watched(thing):
    """Tell whether a module, parameter or optimizer has hooks or methods that were put into it.

    The names of torch's registers are private; ``tests/engine/test_compiled.py`` fails when they
    move.
    """
    if isinstance(thing, torch.Tensor):
        return is_watched_tensor(thing)
    hooks = [value for name, value in vars(thing).items() if name.endswith("_hooks")]
    if any(hooks) or is_watched_by_all():
        return True
    has_own_methods = any(callable(getattr(type(thing), name, None)) for name in vars(thing))
    return has_own_methods or has_other_forward(thing)


def is_watched_by_all():
    """Tell whether there are hooks of all modules, or of all optimizers."""
    return bool(
        _has_any_global_hook() or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
    )


# Modules that are trained without a call of their forward, which is kept as it was at import.
_NOT_CALLED = (
    MLP,
    HashedDropout,
    nn.Sequential,
    nn.Flatten,
    nn.Unflatten,
    *_READ,
    *POOLS,
    nn.CrossEntropyLoss,
    nn.MSELoss,
)
_FORWARDS = {cls: cls.forward for cls in (*_NOT_CALLED, *_list_activation_layers())}
# The method, private to torch, by which the forward of a convolution computes; a test of
# ``tests/engine/test_image_nets.py`` fails when it moves.
_CONVOLUTIONS = {cls: cls._conv_forward for cls in (nn.Conv1d, nn.Conv2d)}


def has_other_forward(module):
    """Tell whether the forward of a module's class was replaced since it was imported."""
    cls = type(module)
    if cls in _CONVOLUTIONS and cls._conv_forward is not _CONVOLUTIONS[cls]:
        return True
    return cls in _FORWARDS and cls.forward is not _FORWARDS[cls]


def keeps_integers(X, module):
    """Tell whether an array goes to a module as integers, which an embedding looks rows up by."""
    return X.dtype.kind in "iu" and has_embedding(module)


def has_embedding(module):
    """Tell whether a part of a module is an embedding, whose inputs must be integers."""
    return any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules())
