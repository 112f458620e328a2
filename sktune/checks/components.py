"""Components that are given as names: which class of torch's is meant."""

import torch
from torch import nn

# What other libraries and tutorials call a criterion; torch's own names are found without.
_CRITERIA = {
    "mse": "MSELoss",
    "squarederror": "MSELoss",
    "meansquarederror": "MSELoss",
    "mae": "L1Loss",
    "l1": "L1Loss",
    "absoluteerror": "L1Loss",
    "meanabsoluteerror": "L1Loss",
    "huber": "HuberLoss",
    "smoothl1": "SmoothL1Loss",
    "poisson": "PoissonNLLLoss",
    "logloss": "CrossEntropyLoss",
    "crossentropy": "CrossEntropyLoss",
    "ce": "CrossEntropyLoss",
    "categoricalcrossentropy": "CrossEntropyLoss",
    "sparsecategoricalcrossentropy": "CrossEntropyLoss",
    "nll": "NLLLoss",
    "bce": "BCEWithLogitsLoss",
    "binarycrossentropy": "BCEWithLogitsLoss",
    "bcewithlogits": "BCEWithLogitsLoss",
    "binarycrossentropywithlogits": "BCEWithLogitsLoss",
}
_REQUIREMENTS = {
    "module": "an nn.Module class or instance such as sktune.MLP",
    "criterion": "a criterion, class or instance, such as torch.nn.{}",
    "optimizer": "a torch.optim.Optimizer class such as torch.optim.{}",
}
_USUAL = {"criterion": "CrossEntropyLoss", "optimizer": "AdamW"}


def check_components(components):
    """Check that module, criterion and optimizer, those of them that are in a dict, are no names.

    The error tells which class of torch's a name means. An optimizer must not be an instance
    either, which would hold the parameters of another module, nor a criterion a function of torch's.
    """
    for kind, requirement in _REQUIREMENTS.items():
        component = components.get(kind)
        if isinstance(component, str):
            name, given = component, repr(component)
        elif isinstance(component, torch.optim.Optimizer):
            name = type(component).__name__
            given = f"an instance of {name}"
        elif kind == "criterion" and getattr(component, "__module__", "") == "torch.nn.functional":
            name = component.__name__
            given = f"the function {name}"
        elif kind in components and not callable(component):
            name = ""
            given = repr(component)
        else:
            continue
        meant = _find_class(kind, name) or _USUAL.get(kind)
        raise ValueError(f"{kind} must be {requirement.format(meant)}, got {kind}={given}")


def _find_class(kind, name):
    """Return the name of torch's class that a name means, or None."""
    plain = _simplify(name.rpartition(".")[2])
    if kind == "criterion":
        known = {_simplify(other): other for other in vars(nn) if other.endswith("Loss")}
        return _CRITERIA.get(plain) or known.get(plain) or known.get(plain + "loss")
    if kind == "optimizer":
        known = {_simplify(other): other for other in vars(torch.optim) if other[:1].isupper()}
        return known.get(plain)
    return None


def _simplify(name):
    return "".join(letter for letter in name.lower() if letter.isalnum())
