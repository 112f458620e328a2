"""Pooling of the compiled kernels: what is largest in a window, and averages."""

import numpy as np

from sktune.engine.compiled.opcodes import (
    DILATION_X,
    DILATION_Y,
    FLOW_A,
    IN_CHANNELS,
    IN_HEIGHT,
    IN_WIDTH,
    KERNEL_HEIGHT,
    KERNEL_WIDTH,
    N_INPUTS,
    NOTHING,
    OPTION,
    OUT,
    OUT_HEIGHT,
    OUT_WIDTH,
    PADDING_X,
    PADDING_Y,
    SLOT_A,
    STRIDE_X,
    STRIDE_Y,
    WRITTEN,
    A,
)
from sktune.engine.compiled.spatial.rows import (
    give_to_all,
    give_to_largest,
    take_average,
    take_largest,
)
from sktune.engine.compiled.spatial.windows import find_window
from sktune.engine.compiled.vectors.code import compiled
from sktune.engine.compiled.vectors.scalars import cast


@compiled
def _list_window(link, place, stride, starts):
    """List where the rows of an output's window begin in the table of a channel.

    Parameters
    ----------
    link : ndarray of int
    place : int
        Of the outputs, from 0.
    stride : int
        From row to row of the table.
    starts : ndarray of int (height * width of the window,)
        It gets the places.

    Returns
    -------
    n_parts : int
        The number of places.
    parts : tuple of int
        See :func:`find_window`.
    """
    parts, source = find_window(link, place)
    first_y, stop_y, first_x, stop_x = parts
    n_parts = 0
    for y in range(stop_y - first_y):
        for x in range(stop_x - first_x):
            row = source + y * link[DILATION_Y] * link[IN_WIDTH] + x * link[DILATION_X]
            starts[n_parts] = row * stride
            n_parts += 1
    return n_parts, parts


@compiled
def apply_max_pool(link, space, n):
    """Write the largest number of each window, for n rows."""
    stride = space.stride
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    starts = np.empty(link[KERNEL_HEIGHT] * link[KERNEL_WIDTH], np.int64)
    for place in range(n_places):
        n_parts, _ = _list_window(link, place, stride, starts)
        for channel in range(link[IN_CHANNELS]):
            table = space.tables[link[A], channel * link[IN_HEIGHT] * link[IN_WIDTH] * stride :]
            target = space.tables[link[OUT], (channel * n_places + place) * stride :]
            take_largest(target, table, starts, n_parts, n)


@compiled
def trace_max_pool(link, space, above, n):
    """Give the gradient of each output to the first of the numbers that are largest."""
    if link[FLOW_A] == NOTHING:
        return
    stride = space.stride
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    starts = np.empty(link[KERNEL_HEIGHT] * link[KERNEL_WIDTH], np.int64)
    below = _open_gradient(link, space)
    for place in range(n_places):
        n_parts, _ = _list_window(link, place, stride, starts)
        for channel in range(link[IN_CHANNELS]):
            start = channel * link[IN_HEIGHT] * link[IN_WIDTH] * stride
            table = space.tables[link[A], start:]
            of_place = above[(channel * n_places + place) * stride :]
            # layers in place may have changed the outputs, so that the largest is found anew
            give_to_largest(below[start:], of_place, table, starts, n_parts, n)


@compiled
def _open_gradient(link, space):
    """Return the table of the gradient of what a pooling reads: zeros, unless it is added to."""
    below = space.gradients[link[SLOT_A]]
    if link[FLOW_A] == WRITTEN:
        for i in range(link[N_INPUTS] * space.stride):
            below[i] = cast(0.0, below[0])
    return below


@compiled
def _find_divisor(link, parts, place, fixed):
    """Return what the sum of a window is divided by."""
    if fixed != 0:
        return np.int64(fixed)
    first_y, stop_y, first_x, stop_x = parts
    if link[OPTION] == 0:
        return (stop_y - first_y) * (stop_x - first_x)
    # the padding counts, but not what lies behind it
    start_y = place // link[OUT_WIDTH] * link[STRIDE_Y] - link[PADDING_Y]
    start_x = place % link[OUT_WIDTH] * link[STRIDE_X] - link[PADDING_X]
    most_y = link[IN_HEIGHT] + link[PADDING_Y] - start_y
    most_x = link[IN_WIDTH] + link[PADDING_X] - start_x
    return min(link[KERNEL_HEIGHT], most_y) * min(link[KERNEL_WIDTH], most_x)


@compiled
def apply_average_pool(link, options, space, n):
    """Write the average of each window, for n rows. `options` are a divisor, or 0, and 0."""
    stride = space.stride
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    starts = np.empty(link[KERNEL_HEIGHT] * link[KERNEL_WIDTH], np.int64)
    for place in range(n_places):
        n_parts, parts = _list_window(link, place, stride, starts)
        divisor = cast(_find_divisor(link, parts, place, options[0]), space.zero[0])
        for channel in range(link[IN_CHANNELS]):
            table = space.tables[link[A], channel * link[IN_HEIGHT] * link[IN_WIDTH] * stride :]
            target = space.tables[link[OUT], (channel * n_places + place) * stride :]
            take_average(target, table, starts, n_parts, divisor, n)


@compiled
def trace_average_pool(link, options, space, above, n):
    """Give the gradient of each output to the numbers of its window, in equal parts."""
    if link[FLOW_A] == NOTHING:
        return
    stride = space.stride
    n_places = link[OUT_HEIGHT] * link[OUT_WIDTH]
    starts = np.empty(link[KERNEL_HEIGHT] * link[KERNEL_WIDTH], np.int64)
    below = _open_gradient(link, space)
    for place in range(n_places):
        n_parts, parts = _list_window(link, place, stride, starts)
        divisor = cast(_find_divisor(link, parts, place, options[0]), space.zero[0])
        for channel in range(link[IN_CHANNELS]):
            of_place = above[(channel * n_places + place) * stride :]
            start = channel * link[IN_HEIGHT] * link[IN_WIDTH] * stride
            give_to_all(below[start:], of_place, starts, n_parts, divisor, n)
