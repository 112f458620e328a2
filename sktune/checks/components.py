"""Components that are given as names, and the class of torch's that each name means."""

import torch
from torch import nn

# What other libraries and tutorials call a criterion. torch's own names need no entry.
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
# The class that an error names where a name means none.
_EXAMPLES = {"criterion": "CrossEntropyLoss", "optimizer": "AdamW"}


def check_components(components):
    """Check that module, criterion and optimizer are classes, or what skorch takes besides.

    Parameters
    ----------
    components : dict
        By ``"module"``, ``"criterion"`` and ``"optimizer"``; each may be missing.

    Raises
    ------
    ValueError
        If a component is a name, or nothing that can be called; if the optimizer is an instance,
        which would hold the parameters of another module; or if the criterion is a function of
        torch's. The error names the class that is probably meant.
    """
    for role, requirement in _REQUIREMENTS.items():
        if role not in components:
            continue
        component = components[role]
        name, given = _describe_if_wrong(role, component)
        if given is not None:
            meant = _find_class(role, name) or _EXAMPLES.get(role)
            raise ValueError(f"{role} must be {requirement.format(meant)}, got {role}={given}")


def _describe_if_wrong(role, component):
    """Return the name that a wrong component has, and how an error shows it; else two Nones."""
    if isinstance(component, str):
        return component, repr(component)
    if isinstance(component, torch.optim.Optimizer):
        name = type(component).__name__
        return name, f"an instance of {name}"
    if role == "criterion" and getattr(component, "__module__", "") == "torch.nn.functional":
        name = component.__name__
        return name, f"the function {name}"
    if not callable(component):
        return "", repr(component)
    return None, None


def _find_class(role, name):
    """Return the name of torch's class that a name means, or None."""
    simple = _simplify(name.rpartition(".")[2])
    if role == "criterion":
        known = {_simplify(other): other for other in vars(nn) if other.endswith("Loss")}
        return _CRITERIA.get(simple) or known.get(simple) or known.get(simple + "loss")
    if role == "optimizer":
        known = {_simplify(other): other for other in vars(torch.optim) if other[:1].isupper()}
        return known.get(simple)
    return None


def _simplify(name):
    return "".join(letter for letter in name.lower() if letter.isalnum())
