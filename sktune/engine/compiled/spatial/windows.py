"""Where the window of an operation on images lies, for each place of what it writes."""

import numpy as np

from sktune.engine.compiled.vectors import compiled


@compiled
def find_window(place, n_places, size, stride, padding, dilation):
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
def find_windows_over(place, n_windows, size, stride, padding, dilation):
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
