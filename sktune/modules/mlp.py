"""The default module."""

from collections.abc import Iterable, Iterator, Mapping, Set
from numbers import Integral

from torch import nn

from sktune.modules.activations import IDENTITY, find_activation, find_gain
from sktune.modules.initialization import INITIALIZATIONS
from sktune.runtime.names import check_name


class MLP(nn.Module):
    """Multilayer perceptron: linear layers, each but the last followed by norm, activation and dropout.

    Parameters
    ----------
    n_features : int
        Numbers per row. Rows of more than one dimension are flattened.
    n_outputs : int
        Classes of a classifier (the outputs are logits), or targets of a regressor.
    hidden : int or iterable of int, default=(128,)
        Width of each hidden layer: a tuple, a list, an array, a range; ``()`` is a linear model.
    activation : str, or nn.Module class or instance, default="relu"
        One of relu, leaky_relu, elu, gelu, silu (or swish), tanh, sigmoid (or logistic), identity, in any case; or a
        class such as ``nn.Mish``, or an instance such as ``nn.LeakyReLU(0.2)``, of which each layer gets a copy.
    dropout : float, default=0.0
        Probability, in [0, 1), that a hidden unit is silenced in a training step.
    batch_norm : bool, default=False
        Whether batch normalisation precedes each activation. The linear layer before it has no bias: the
        normalisation would take it away again.
    init : str, default="default"
        Initial weights: ``"default"`` (torch's), ``"xavier"`` (Glorot and Bengio 2010, uniform), ``"he"``
        (He et al. 2015, normal), ``"orthogonal"`` (Saxe et al. 2014), ``"normal"`` (standard deviation 0.05).
        All but the default start from zero biases.
    dtype : torch.dtype, default=None
        Type of the parameters, hence of the whole computation; None is torch's default, float32.

    Examples
    --------
    >>> import torch
    >>> from sktune import MLP
    >>> MLP(n_features=4, n_outputs=3, hidden=(16, 8), activation="tanh")(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, n_features, n_outputs, hidden=(128,), activation="relu", dropout=0.0, batch_norm=False, init="default",
        dtype=None,
    ):  # fmt: skip
        super().__init__()
        widths = read_widths(hidden)
        make_activation = find_activation(activation)
        check_name("init", init, INITIALIZATIONS)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got dropout={dropout!r}")
        layers = []
        for width in widths:
            # batch normalisation takes a bias away again: its gradient would be rounding noise alone
            layers.append(nn.Linear(n_features, width, bias=not batch_norm, dtype=dtype))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width, dtype=dtype))
            if make_activation is not IDENTITY:
                layers.append(make_activation())
            layers.append(nn.Dropout(dropout))
            n_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_features, n_outputs, dtype=dtype))
        if init != "default":
            self._initialize(init, find_gain(make_activation))

    def _initialize(self, init, hidden_gain):
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in linears:
            gain = hidden_gain if layer is not linears[-1] else 1.0
            INITIALIZATIONS[init](layer, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, X):
        """Map (B, F) to (B, C)."""
        return self.layers(X.flatten(1) if X.ndim > 2 else X)


def read_widths(hidden):
    """Return the widths of hidden layers, ints of at least 1, as a list; `hidden` is an int or an iterable of them."""
    values = hidden.tolist() if hasattr(hidden, "tolist") else hidden
    values = [values] if isinstance(values, Integral) else values
    # An iterator would be used up by the first fit, a set has no order.
    is_list = isinstance(values, Iterable) and not isinstance(
        values, Iterator | Set | Mapping | str | bytes
    )
    widths = list(values) if is_list else [None]
    if not all(isinstance(w, Integral) and not isinstance(w, bool) and w >= 1 for w in widths):
        raise ValueError(
            f"hidden must be a positive int or a sequence of them, got hidden={hidden!r}"
        )
    return [int(width) for width in widths]
