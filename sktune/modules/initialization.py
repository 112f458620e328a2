"""Initial weights of linear layers."""

from torch import nn

# What draws the weights of a layer, given the gain of the activation that follows. None leaves
# torch's own weights as they are.
INITIALIZATIONS = {
    "default": None,
    # Glorot and Bengio 2010, eq. 16
    "xavier": lambda layer, gain: nn.init.xavier_uniform_(layer.weight, gain),
    # He et al. 2015, eq. 10
    "he": lambda layer, gain: nn.init.normal_(layer.weight, std=2**0.5 * layer.in_features**-0.5),
    # Saxe et al. 2014
    "orthogonal": lambda layer, gain: nn.init.orthogonal_(layer.weight, gain),
    "normal": lambda layer, gain: nn.init.normal_(layer.weight, std=0.05),
}
