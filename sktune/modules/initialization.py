"""Initial weights."""

from torch import nn

INITIALIZATIONS = {
    "default": None,
    "xavier": lambda layer, gain: nn.init.xavier_uniform_(layer.weight, gain),
    "he": lambda layer, gain: nn.init.normal_(layer.weight, std=2**0.5 * layer.in_features**-0.5),
    "orthogonal": lambda layer, gain: nn.init.orthogonal_(layer.weight, gain),
    "normal": lambda layer, gain: nn.init.normal_(layer.weight, std=0.05),
}
