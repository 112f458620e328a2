"""Where the window of an operation on images lies, for each place of what it writes."""

import numpy as np

from sktune.engine.compiled.opcodes import (
    DILATION_X,
    DILATION_Y,
    IN_HEIGHT,
    IN_WIDTH,
    KERNEL_HEIGHT,
    KERNEL_WIDTH,
    OUT_HEIGHT,
    OUT_WIDTH,
    PADDING_X,
    PADDING_Y,
    STRIDE_X,
    STRIDE_Y,
)
from sktune.engine.compiled.vectors.code import compiled


@compiled
def find_window(link, place):
    """Return the window of an output: its parts that lie in the image, and where they begin.

    Parameters
    ----------
    link : ndarray of int
    place : int
        Of the outputs of a channel, from 0.

    Returns
    -------
    parts : tuple of int
        (first y, behind the last y, first x, behind the last x).
    source : int
        The place of the image where the first part lies; meaningless if there is none.
    """
    first_y, stop_y, source_y = _find_parts(
        place // link[OUT_WIDTH],
        link[IN_HEIGHT],
        link[KERNEL_HEIGHT],
        link[STRIDE_Y],
        link[PADDING_Y],
        link[DILATION_Y],
    )
    first_x, stop_x, source_x = _find_parts(
        place % link[OUT_WIDTH],
        link[IN_WIDTH],
        link[KERNEL_WIDTH],
        link[STRIDE_X],
        link[PADDING_X],
        link[DILATION_X],
    )
    return (first_y, stop_y, first_x, stop_x), source_y * link[IN_WIDTH] + source_x


@compiled
def find_windows_over(link, place):
    """Return the windows that look at a place of the image.

    Parameters
    ----------
    link : ndarray of int
    place : int
        Of a channel of the image, from 0.

    Returns
    -------
    parts : tuple of int
        (first y, number of y, first x, number of x) of the parts of a window that look at it.
    window : int
        The output whose window does so by its first part; meaningless if there is none.
    """
    first_y, n_y, window_y = _find_parts_over(
        place // link[IN_WIDTH],
        link[OUT_HEIGHT],
        link[KERNEL_HEIGHT],
        link[STRIDE_Y],
        link[PADDING_Y],
        link[DILATION_Y],
    )
    first_x, n_x, window_x = _find_parts_over(
        place % link[IN_WIDTH],
        link[OUT_WIDTH],
        link[KERNEL_WIDTH],
        link[STRIDE_X],
        link[PADDING_X],
        link[DILATION_X],
    )
    return (first_y, n_y, first_x, n_x), window_y * link[OUT_WIDTH] + window_x


@compiled
def _find_parts(place, n_places, size, stride, padding, dilation):
    """Return which parts of a window lie in the image, along one dimension.

    Parameters
    ----------
    place : int
        Of the outputs, from 0.
    n_places : int
        The places of the image.
    size, stride, padding, dilation : int

    Returns
    -------
    first, stop : int
        The first of the parts that lie in the image, and the one behind the last.
    source : int
        The place of the image where the first part lies; meaningless if there is none.
    """
    start = place * stride - padding
    first = np.int64(0)
    while first < size and start + first * dilation < 0:
        first += 1
    stop = first
    while stop < size and start + stop * dilation < n_places:
        stop += 1
    return first, stop, start + first * dilation


@compiled
def _find_parts_over(place, n_windows, size, stride, padding, dilation):
    """Return which windows look at a place of the image, along one dimension.

    Parameters
    ----------
    place : int
        Of the image, from 0.
    n_windows : int
        The places of the outputs.
    size, stride, padding, dilation : int

    Returns
    -------
    first : int
        The first part of a window that looks at the place.
    n_parts : int
        How many of the parts do so; the distance from one to the next is always the same.
    window : int
        The output whose window looks at it by its first part; meaningless if there is none.
    """
    first = np.int64(0)
    n_parts = np.int64(0)
    window = np.int64(0)
    for part in range(size):
        start = place + padding - part * dilation
        if start >= 0 and start % stride == 0 and start // stride < n_windows:
            if n_parts == 0:
                first = np.int64(part)
                window = start // stride
            n_parts += 1
    return first, n_parts, window
