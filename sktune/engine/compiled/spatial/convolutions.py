"""Convolutions of the compiled kernels, with their gradients.

An image lies as torch flattens it, ``(channels, height, width)``, and each of its numbers is a row
of the table, over the rows of the batch. So the window of an output is a list of rows of the table:
an output is their product with the weight, and the gradient of an input is that of the gradients of
the outputs that look at it.
"""

import numpy as np

from sktune.engine.compiled.entries.products import call_add_places, call_multiply_gathered
from sktune.engine.compiled.opcodes import (
    ADDED,
    BIAS,
    DILATION_X,
    DILATION_Y,
    FLOW_A,
    GROUPS,
    IN_CHANNELS,
    IN_HEIGHT,
    IN_WIDTH,
    IS_FIRST_BIAS,
    IS_FIRST_WEIGHT,
    KERNEL_HEIGHT,
    KERNEL_WIDTH,
    N_INPUTS,
    NOTHING,
    OUT,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    PADDING_X,
    PADDING_Y,
    SLOT_A,
    STRIDE_X,
    STRIDE_Y,
    WEIGHT,
    A,
)
from sktune.engine.compiled.spatial.products import LONG_COLUMN, TILE_OUTPUTS
from sktune.engine.compiled.spatial.windows import find_window, find_windows_over
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast
from sktune.engine.compiled.vectors.sums import add_up

# The numbers of a channel that the gradient of a weight is computed from at once: those of a tile
# stay in a core's first cache.
_AT_ONCE = 2048


@compiled
def apply_convolution(link, flat, space, n):
    """Compute the outputs of a convolution for n rows."""
    n_numbers = link[IN_HEIGHT] * link[IN_WIDTH]
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    n_inputs = link[IN_CHANNELS] // link[GROUPS]
    n_outputs = link[OUT_CHANNELS] // link[GROUPS]
    n_weights = n_inputs * link[KERNEL_HEIGHT] * link[KERNEL_WIDTH]
    in_weight = np.empty(n_weights, np.int64)
    in_table = np.empty(n_weights, np.int64)
    bias = space.zero
    bias_stride = np.int64(link[BIAS] >= 0)
    n_parts = np.int64(0)
    before = (np.int64(-1), np.int64(-1), np.int64(-1), np.int64(-1))
    for place in range(n_places):
        parts, source = find_window(link, place)
        # Windows that lie in the image by the same parts differ in their beginning alone.
        if parts != before:
            before = parts
            n_parts = _list_inputs(link, space.stride, parts, in_weight, in_table)
        for group in range(link[GROUPS]):
            channel = group * n_outputs
            start = group * n_inputs * n_numbers + source
            if link[BIAS] >= 0:
                bias = flat[link[BIAS] + channel :]
            target = space.tables[link[OUT], (channel * n_places + place) * space.stride :]
            weight = flat[link[WEIGHT] + channel * n_weights :]
            # without a part in the image, the start may lie outside of it, and is not read
            table = space.tables[link[A], max(start, 0) * space.stride :]
            row = n_places * space.stride
            call_multiply_gathered(
                space.products.multiply_gathered,
                (
                    target,
                    row,
                    weight,
                    n_weights,
                    table,
                    in_weight,
                    in_table,
                    n_parts,
                    n_outputs,
                    n,
                    bias,
                    bias_stride,
                ),
            )


@compiled
def _list_inputs(link, stride, parts, in_weight, in_table):
    """List what a window reads of a group's weight and inputs; return the number of parts.

    Parameters
    ----------
    link : ndarray of int
    stride : int
        From row to row of the table.
    parts : tuple of int
        The first part of the window that lies in the image, and that behind the last, for y and x.
    in_weight, in_table : ndarray of int (channels * height * width of the window,)
        They get places in the weight of an output, and in the table behind the first part.
    """
    first_y, stop_y, first_x, stop_x = parts
    n = 0
    for channel in range(link[IN_CHANNELS] // link[GROUPS]):
        for y in range(first_y, stop_y):
            row = channel * link[IN_HEIGHT] + (y - first_y) * link[DILATION_Y]
            for x in range(first_x, stop_x):
                column = (x - first_x) * link[DILATION_X]
                in_weight[n] = (channel * link[KERNEL_HEIGHT] + y) * link[KERNEL_WIDTH] + x
                in_table[n] = (row * link[IN_WIDTH] + column) * stride
                n += 1
    return n


@compiled
def trace_convolution(link, flat, gradient, space, above, n, n_rows):
    """Write the gradients of a convolution."""
    stride = space.stride
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    # the products run over whole vectors of rows
    for row in range(link[OUT_CHANNELS] * n_places):
        for i in range(row * stride + n_rows, row * stride + n):
            above[i] = cast(0.0, above[0])
    if link[BIAS] >= 0:
        for channel in range(link[OUT_CHANNELS]):
            total = cast(0.0, above[0])
            for place in range(channel * n_places, (channel + 1) * n_places):
                total += add_up((above[place * stride :],), (), n_rows)
            if link[IS_FIRST_BIAS] == 0:
                total += gradient[link[BIAS] + channel]
            gradient[link[BIAS] + channel] = total
    _trace_weight(link, gradient, space, above, n)
    if link[FLOW_A] != NOTHING:
        below = space.gradients[link[SLOT_A]]
        is_added = link[FLOW_A] == ADDED
        summand = space.gradients[-1] if is_added else below
        _trace_inputs(link, flat, space, above, summand, n)
        if is_added:
            for i in range(link[N_INPUTS] * stride):
                below[i] += summand[i]


@compiled
def _trace_weight(link, gradient, space, above, n):
    """Write the gradient of the weight of a convolution."""
    n_inputs = link[IN_CHANNELS] // link[GROUPS]
    n_outputs = link[OUT_CHANNELS] // link[GROUPS]
    n_weights = n_inputs * link[KERNEL_HEIGHT] * link[KERNEL_WIDTH]
    if link[IS_FIRST_WEIGHT] == 1:
        for i in range(link[WEIGHT], link[WEIGHT] + link[OUT_CHANNELS] * n_weights):
            gradient[i] = cast(0.0, gradient[0])
    n_columns = max(_AT_ONCE // n, 1)
    for place_y in range(link[OUT_HEIGHT]):
        for start_x in range(0, link[OUT_WIDTH], n_columns):
            stop_x = min(start_x + n_columns, link[OUT_WIDTH])
            for group in range(link[GROUPS]):
                output = 0
                while output < n_outputs:
                    n_channels = min(n_outputs - output, TILE_OUTPUTS)
                    # a tile of as many columns as rows would have few of them
                    if n_inputs < TILE_OUTPUTS and output + LONG_COLUMN <= n_outputs:
                        n_channels = LONG_COLUMN
                    _trace_tile(
                        link,
                        gradient,
                        space,
                        above,
                        n,
                        (place_y, start_x, stop_x),
                        (group, group * n_outputs + output, n_channels),
                    )
                    output += n_channels


@compiled
def _trace_tile(link, gradient, space, above, n, places, channels):
    """Add to the gradients of a few outputs' weights what follows from neighbouring places.

    Parameters
    ----------
    link, gradient, space, above, n
        As in :func:`trace_convolution`.
    places : tuple of int
        The row of the image, and the first and the last place in it, which is not counted.
    channels : tuple of int
        The group, the first of the channels of the outputs, and their number.
    """
    stride = space.stride
    place_y, start_x, stop_x = places
    group, channel, n_channels = channels
    height, width = link[IN_HEIGHT], link[IN_WIDTH]
    n_inputs = link[IN_CHANNELS] // link[GROUPS]
    n_parts = link[KERNEL_HEIGHT] * link[KERNEL_WIDTH]
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    table = space.tables[link[A]]
    for part in range(n_parts):
        y = place_y * link[STRIDE_Y] - link[PADDING_Y]
        y += part // link[KERNEL_WIDTH] * link[DILATION_Y]
        # the places from which the part of the window lies in the image
        shift = part % link[KERNEL_WIDTH] * link[DILATION_X] - link[PADDING_X]
        first, stop = start_x, stop_x
        while first < stop and first * link[STRIDE_X] + shift < 0:
            first += 1
        while stop > first and (stop - 1) * link[STRIDE_X] + shift >= width:
            stop -= 1
        if y < 0 or y >= height or first == stop:
            continue
        source = (group * n_inputs * height + y) * width + first * link[STRIDE_X] + shift
        target = channel * n_places + place_y * link[OUT_WIDTH] + first
        weight = gradient[link[WEIGHT] + channel * n_inputs * n_parts + part :]
        of_target = above[target * stride :]
        of_source = table[source * stride :]
        row = height * width * stride
        step = link[STRIDE_X] * stride
        shape = (n_channels, n_inputs, stop - first, n)
        call_add_places(
            space.products.add_places,
            (
                weight,
                n_inputs * n_parts,
                n_parts,
                of_target,
                n_places * stride,
                stride,
                of_source,
                row,
                step,
                shape,
            ),
        )


@compiled
def _trace_inputs(link, flat, space, above, below, n):
    """Write the gradient of the inputs of a convolution into a table, for n rows."""
    n_places = link[IN_HEIGHT] * link[IN_WIDTH]
    n_inputs = link[IN_CHANNELS] // link[GROUPS]
    n_outputs = link[OUT_CHANNELS] // link[GROUPS]
    n_parts = link[KERNEL_HEIGHT] * link[KERNEL_WIDTH]
    in_weight = np.empty(n_outputs * n_parts, np.int64)
    in_table = np.empty(n_outputs * n_parts, np.int64)
    n_listed = np.int64(0)
    before = (np.int64(-1), np.int64(-1), np.int64(-1), np.int64(-1))
    for place in range(n_places):
        parts, window = find_windows_over(link, place)
        if parts != before:
            before = parts
            n_listed = _list_outputs(link, space.stride, parts, in_weight, in_table)
        for group in range(link[GROUPS]):
            channel = group * n_outputs
            start = channel * link[OUT_HEIGHT] * link[OUT_WIDTH] + window
            target = below[(group * n_inputs * n_places + place) * space.stride :]
            row = n_places * space.stride
            weight = flat[link[WEIGHT] + channel * n_inputs * n_parts :]
            table = above[start * space.stride :]
            call_multiply_gathered(
                space.products.multiply_gathered,
                (
                    target,
                    row,
                    weight,
                    n_parts,
                    table,
                    in_weight,
                    in_table,
                    n_listed,
                    n_inputs,
                    n,
                    space.zero,
                    0,
                ),
            )


@compiled
def _list_outputs(link, stride, parts, in_weight, in_table):
    """List what an input's gradient reads of a group's weight and outputs; return the number.

    Parameters
    ----------
    link : ndarray of int
    stride : int
        From row to row of the table.
    parts : tuple of int
        The first part of a window that looks at the input, and how many do so, for y and x.
    in_weight, in_table : ndarray of int (channels * height * width of the window,)
        They get places in the weight of an input, and in the table of the outputs' gradients,
        seen from the window that looks at the input by its first part.
    """
    first_y, n_y, first_x, n_x = parts
    # the least steps from part to part by which a window moves as a whole
    step_y = link[STRIDE_Y] // _gcd(link[STRIDE_Y], link[DILATION_Y])
    step_x = link[STRIDE_X] // _gcd(link[STRIDE_X], link[DILATION_X])
    n_inputs = link[IN_CHANNELS] // link[GROUPS]
    n = 0
    for channel in range(link[OUT_CHANNELS] // link[GROUPS]):
        for j in range(n_y):
            y = first_y + j * step_y
            row = channel * link[OUT_HEIGHT] - j * step_y * link[DILATION_Y] // link[STRIDE_Y]
            for k in range(n_x):
                x = first_x + k * step_x
                column = -(k * step_x * link[DILATION_X] // link[STRIDE_X])
                weight = (channel * n_inputs * link[KERNEL_HEIGHT] + y) * link[KERNEL_WIDTH] + x
                in_weight[n] = weight
                in_table[n] = (row * link[OUT_WIDTH] + column) * stride
                n += 1
    return n


@compiled
def _gcd(a, b):
    while b > 0:
        a, b = b, a % b
    return a
