"""The default module."""

from collections.abc import Iterable, Iterator, Mapping, Set
from numbers import Integral

from torch import nn

from sktune.modules.activations import IDENTITY, find_activation, find_gain
from sktune.modules.initialization import INITIALIZATIONS
from sktune.runtime.names import check_name


class MLP(nn.Module):
    """Multilayer perceptron: hidden layers, and a linear layer for the outputs.

    A hidden layer is a linear layer, then batch normalisation, activation and dropout.

    Parameters
    ----------
    n_features : int
        Numbers per row. Rows of more than one dimension are flattened.
    n_outputs : int
        Classes of a classifier (the outputs are logits), or targets of a regressor.
    hidden : int or iterable of int, default=(128,)
        Width of each hidden layer: a tuple, a list, an array, a range; ``()`` is a linear model.
    activation : str, or nn.Module class or instance, default="relu"
        One of relu, leaky_relu, elu, gelu, silu (or swish), tanh, sigmoid (or logistic), mish,
        hardswish, selu, celu, softplus, softsign, relu6, hardtanh, hardsigmoid, logsigmoid,
        tanhshrink, softshrink, hardshrink, identity (or linear), in any case; or a class such as
        ``nn.Mish``, or an instance such as ``nn.LeakyReLU(0.2)``, of which each layer gets a copy.
    dropout : float, default=0.0
        Probability, in [0, 1), that a hidden unit is set to 0 in a training step.
    batch_norm : bool, default=False
        Whether batch normalisation precedes each activation. The linear layer before it has no
        bias: the normalisation would subtract it again.
    init : str, default="default"
        Initial weights: ``"default"`` (torch's), ``"xavier"`` (Glorot and Bengio 2010, uniform),
        ``"he"`` (He et al. 2015, normal), ``"orthogonal"`` (Saxe et al. 2014), ``"normal"``
        (standard deviation 0.05). All but the default start from zero biases.
    dtype : torch.dtype, default=None
        Type of the parameters, hence of the whole computation; None is torch's default, float32.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a name is not known.

    Examples
    --------
    >>> import torch
    >>> from sktune import MLP
    >>> MLP(n_features=4, n_outputs=3, hidden=(16, 8), activation="tanh")(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        n_features,
        n_outputs,
        hidden=(128,),
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        init="default",
        dtype=None,
    ):
        super().__init__()
        widths = read_widths(hidden)
        make_activation = find_activation(activation)
        check_name("init", init, INITIALIZATIONS)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got dropout={dropout!r}")

        layers = []
        n_inputs = n_features
        for width in widths:
            # Batch normalisation subtracts a bias again: its gradient would be rounding noise.
            layers.append(nn.Linear(n_inputs, width, bias=not batch_norm, dtype=dtype))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width, dtype=dtype))
            if make_activation is not IDENTITY.layer:
                layers.append(make_activation())
            layers.append(nn.Dropout(dropout))
            n_inputs = width
        layers.append(nn.Linear(n_inputs, n_outputs, dtype=dtype))
        self.layers = nn.Sequential(*layers)

        if init != "default":
            self._initialize(init, find_gain(make_activation))

    def _initialize(self, init, hidden_gain):
        """Draw the initial weights; `hidden_gain` is for all linear layers but the last."""
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
    """Return the widths of hidden layers as a list of int.

    Parameters
    ----------
    hidden : int or iterable of int
        Widths of at least 1.

    Raises
    ------
    ValueError
        If `hidden` is anything else.
    """
    widths = _as_list(hidden.tolist() if hasattr(hidden, "tolist") else hidden)
    if widths is None or not all(map(_is_width, widths)):
        raise ValueError(
            f"hidden must be a positive int or a sequence of them, got hidden={hidden!r}"
        )
    return [int(width) for width in widths]


def _as_list(values):
    """Return an int, or an ordered iterable that can be read again, as a list; else None."""
    if isinstance(values, Integral):
        return [values]
    # The first fit would use an iterator up, and a set has no order.
    is_excluded = isinstance(values, Iterator | Set | Mapping | str | bytes)
    return list(values) if isinstance(values, Iterable) and not is_excluded else None


def _is_width(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1
