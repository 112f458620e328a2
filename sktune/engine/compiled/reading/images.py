"""Reading of convolutions and pooling: the windows through which they look at images."""

import math

from torch import nn

from sktune.engine.compiled import opcodes
from sktune.engine.compiled.reading.layers import Unknown, make_row


def read_window(link, source):
    """Return row and settings of a convolution or a pooling, without its parameters.

    Parameters
    ----------
    link : OpenLink
        With a layer :class:`~sktune.modules.tracing.links.OnImages`.
    source : int
        The value that it reads.
    """
    layer = link.layer.layer
    opcode = _OPCODES[type(layer)]
    # a sequence is an image of one row
    channels, *places = link.layer.shape
    places = _as_pair(places, 1)
    out_channels = channels if opcode != opcodes.CONVOLUTION else layer.out_channels
    if isinstance(layer, _ADAPTIVE):
        out_places = _read_output_size(layer, places)
        if any(n % n_out for n, n_out in zip(places, out_places, strict=True)):
            raise Unknown(f"its layer {link.name} has windows of several sizes")
        kernel = [n // n_out for n, n_out in zip(places, out_places, strict=True)]
        stride, padding, dilation = kernel, [0, 0], [1, 1]
    else:
        n_dimensions = len(link.layer.shape) - 1
        kernel = _read_pair(layer.kernel_size, n_dimensions, 1)
        stride = _read_pair(layer.stride, n_dimensions, 1)
        dilation = _read_pair(getattr(layer, "dilation", 1), n_dimensions, 1)
        padding = _read_padding(layer, n_dimensions, kernel, dilation)
        out_places = _count_places(layer, places, kernel, stride, padding, dilation)
    sizes = math.prod((channels, *places)), math.prod((out_channels, *out_places))
    row = make_row(opcode, source, *sizes)
    window = (channels, *places, out_channels, *out_places, *kernel, *stride, *padding, *dilation)
    row[opcodes.IN_CHANNELS : opcodes.GROUPS] = window
    row[opcodes.GROUPS] = getattr(layer, "groups", 1)
    row[opcodes.OPTION] = int(getattr(layer, "count_include_pad", False))
    return row, (float(getattr(layer, "divisor_override", None) or 0), 0.0)


def _as_pair(sizes, missing):
    """Return sizes by y and x; those of a sequence have no y."""
    return [missing, *sizes] if len(sizes) == 1 else list(sizes)


def _read_pair(size, n_dimensions, missing):
    """Return a size of a layer by y and x, which may be one number for all dimensions."""
    # one number may be an integer of NumPy
    sizes = list(size) if isinstance(size, tuple | list) else [size] * n_dimensions
    return _as_pair(sizes, missing)


def _read_padding(layer, n_dimensions, kernel, dilation):
    """Return the padding before the first place, by y and x."""
    if layer.padding == "valid":
        return [0, 0]
    if layer.padding == "same":
        return [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    return _read_pair(layer.padding, n_dimensions, 0)


def _read_output_size(layer, places):
    """Return the places of an adaptive pooling, by y and x."""
    asked = layer.output_size
    if isinstance(layer, nn.AdaptiveAvgPool1d | nn.AdaptiveMaxPool1d):
        return [1, asked[0] if isinstance(asked, tuple | list) else asked]
    asked = [asked, asked] if asked is None or isinstance(asked, int) else asked
    return [n if size is None else size for size, n in zip(asked, places, strict=True)]


def _count_places(layer, places, kernel, stride, padding, dilation):
    """Return the places of the outputs, by y and x."""
    if layer.padding == "same":
        return places
    is_up = getattr(layer, "ceil_mode", False)
    counts = []
    for n, size, step, before, spread in zip(
        places, kernel, stride, padding, dilation, strict=True
    ):
        room = n + 2 * before - spread * (size - 1) - 1
        count = (room + (step - 1 if is_up else 0)) // step + 1
        # a window must not begin behind the image
        if is_up and (count - 1) * step >= n + before:
            count -= 1
        counts.append(count)
    return counts


_ADAPTIVE = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)
_OPCODES = {
    nn.Conv1d: opcodes.CONVOLUTION,
    nn.Conv2d: opcodes.CONVOLUTION,
    nn.MaxPool1d: opcodes.MAX_POOL,
    nn.MaxPool2d: opcodes.MAX_POOL,
    nn.AdaptiveMaxPool1d: opcodes.MAX_POOL,
    nn.AdaptiveMaxPool2d: opcodes.MAX_POOL,
    nn.AvgPool1d: opcodes.AVERAGE_POOL,
    nn.AvgPool2d: opcodes.AVERAGE_POOL,
    nn.AdaptiveAvgPool1d: opcodes.AVERAGE_POOL,
    nn.AdaptiveAvgPool2d: opcodes.AVERAGE_POOL,
}
