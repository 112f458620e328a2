"""Values of a traced module whose rows are images or sequences: views of a table, and their layers.

torch flattens a row of (channels, height, width) as the table has it: a view moves no number.
"""

import math

import torch
from torch import nn

from sktune.modules.tracing.operations import Unreadable
from sktune.modules.tracing.values.pieces import Pieces, View
from sktune.modules.tracing.values.pools import POOLS
from sktune.modules.tracing.values.shapes import N_COLUMNS, N_ROWS, is_table_view

# The dimensions of the rows that layers take.
_DIMENSIONS = {
    nn.Conv1d: 2,
    nn.Conv2d: 3,
    nn.BatchNorm1d: 2,
    nn.BatchNorm2d: 3,
    **{pool: 2 if pool.__name__.endswith("1d") else 3 for pool in POOLS},
}


class Images(Pieces):
    """The links read so far; some of their values are views of tables in other shapes."""

    def shape_of(self, value):
        """Return the shape of a row of a value."""
        return value.shape if isinstance(value, View) else (self.known_width(value),)

    def as_view(self, number, shape):
        """Return a table as rows of some shape; rows of one dimension are the table itself."""
        return number if len(shape) == 1 else View(number, tuple(shape))

    def as_number(self, value):
        """Return the number of a table, whatever the shape in which its rows are seen."""
        return value.number if isinstance(value, View) else self.as_table(value)

    def view(self, value, sizes):
        """Return what a view with some sizes makes of a value.

        A size is a number, -1 for what is left, or N_ROWS or N_COLUMNS.
        """
        if not isinstance(value, View) and (not isinstance(value, int) or len(sizes) < 3):
            is_table_view(sizes)
            return self.as_rows(value)
        number = self.as_number(value)
        rest = [self.known_width(number) if size == N_COLUMNS else size for size in sizes[1:]]
        n_open = rest.count(-1) + (sizes[0] == -1)
        is_known = all(isinstance(size, int) for size in rest)
        if not rest or sizes[0] not in (N_ROWS, -1) or n_open > 1 or not is_known:
            raise Unreadable("it views its input in another shape")
        if -1 in rest:
            n = math.prod(size for size in rest if size != -1)
            rest[rest.index(-1)] = self.known_width(number) // n
        self.expect_width(number, math.prod(rest), "a view")
        return self.as_view(number, rest)

    def flatten(self, value, start_dim=0, end_dim=-1):
        """Return a value with several dimensions of its rows as one."""
        if not isinstance(value, View):
            if start_dim not in (1, -1) or end_dim not in (1, -1):
                raise Unreadable("it flattens the rows, too")
            return self.as_rows(value)
        n = 1 + len(value.shape)
        start, end = start_dim % n, end_dim % n
        if start == 0:
            raise Unreadable("it flattens the rows, too")
        shape = value.shape
        flat = math.prod(shape[start - 1 : end])
        return self.as_view(value.number, (*shape[: start - 1], flat, *shape[end:]))

    def unflatten(self, value, dim, sizes):
        """Return a value with one dimension of its rows as several."""
        shape = self.shape_of(value)
        place = dim % (1 + len(shape)) - 1
        sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        if place < 0:
            raise Unreadable("it takes the rows apart")
        rest = (*shape[:place], *sizes, *shape[place + 1 :])
        return self.view(value, [N_ROWS, *rest])

    def add_dimension(self, value, dim):
        """Return a value with a further dimension of one place in its rows."""
        shape = self.shape_of(value)
        place = dim % (2 + len(shape)) - 1
        if place < 0:
            raise Unreadable("it takes all rows for one")
        return self.as_view(self.as_number(value), (*shape[:place], 1, *shape[place:]))

    def drop_dimension(self, value, dim):
        """Return a view without a dimension of one place in its rows."""
        place = dim % (1 + len(value.shape)) - 1
        if place < 0 or value.shape[place] != 1:
            raise Unreadable("it drops a dimension of several places")
        return self.as_view(value.number, value.shape[:place] + value.shape[place + 1 :])

    def reshape(self, value, what, args, options):
        """Return what a function makes that moves no number, or None if it is none of them.

        Parameters
        ----------
        value : int or View
        what : str
            The name of the function.
        args, options
            What it is called with beside the value.
        """
        change = _RESHAPES.get(what)
        if change is None or (isinstance(value, int) and what in _OF_VIEWS):
            return None
        try:
            return change(self, value, *args, **options)
        except TypeError:
            raise Unreadable(f"it calls {what} with other arguments than expected") from None

    def call_on_images(self, value, layer, name, link_name):
        """Return what a convolution, a pooling or a batch normalisation makes of images.

        Parameters
        ----------
        value : View
        layer : nn.Module
        name : str
            What it is called in an error.
        link_name : str
            The name of the layer in its module, or else of a function.
        """
        if not isinstance(value, View) or len(value.shape) != _DIMENSIONS[type(layer)]:
            shape = self.shape_of(value) if isinstance(value, int | View) else "of columns"
            raise Unreadable(f"{name} is called with rows of shape {shape}")
        kept = None if link_name == name else layer
        shape = _find_shape(layer, value.shape, name)
        width = math.prod(shape)
        number = self.add_link(link_name, kept, (value.number,), width, shape=value.shape)
        return self.as_view(number, shape)

    def call_by_number(self, value, layer, link_name, kept):
        """Return what an activation or dropout makes of a view."""
        shape = value.shape if isinstance(layer, nn.LayerNorm) else None
        return View(self.add_link(link_name, kept, (value.number,), shape=shape), value.shape)

    def drop_channels(self, value, layer, link_name, kept):
        """Return what dropout of whole channels makes of a value.

        torch takes a value without the dimensions of a batch for a single row: its rows are then
        dropped as a whole, as if each had one channel.
        """
        number = self.as_number(value)
        shape = (self.known_width(number),)
        if isinstance(value, View):
            shape = value.shape
        is_batch = layer.n_dimensions in (None, 1 + len(shape))
        seen = shape if is_batch else (1, *shape)
        return self.as_view(self.add_link(link_name, kept, (number,), shape=seen), shape)

    def average(self, value, name, dims, keepdim=False):
        """Return the mean over places of each channel of a view: all, or those of a dimension."""
        shape = value.shape
        dims = [dims] if isinstance(dims, int) else list(dims)
        dims = {dim % (1 + len(shape)) for dim in dims}
        if not dims or min(dims) < 2:
            raise Unreadable("it computes the mean of other than places of a channel")
        if len(shape) not in (2, 3):
            raise Unreadable(f"it computes the mean of rows of shape {shape}")
        sizes = tuple(1 if dim in dims else None for dim in range(2, 1 + len(shape)))
        pool = nn.AdaptiveAvgPool1d(1) if len(sizes) == 1 else nn.AdaptiveAvgPool2d(sizes)
        found = self.call_on_images(value, pool, "mean", name)
        if keepdim:
            return found
        left = [n for n, size in zip(shape[1:], sizes, strict=True) if size is None]
        return self.as_view(found.number, (shape[0], *left))


def _find_shape(layer, shape, name):
    """Return the shape of a row of what a layer returns for rows of some shape."""
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        if layer.num_features != shape[0]:
            raise Unreadable(f"{name} is called with rows of shape {shape}")
        return shape
    tensor = next(layer.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            return tuple(layer(tensor.new_zeros(1, *shape)).shape[1:])
    except RuntimeError:
        raise Unreadable(f"{name} is called with rows of shape {shape}") from None


def _squeeze(reader, value, dim=None):
    if not isinstance(dim, int):
        raise Unreadable("it drops whatever dimension has one place")
    return reader.drop_dimension(value, dim)


# Functions and methods that change the shape of rows alone.
_RESHAPES = {
    "flatten": Images.flatten,
    "unflatten": Images.unflatten,
    "unsqueeze": Images.add_dimension,
    "squeeze": _squeeze,
}
# Those that other functions read where a value is a table.
_OF_VIEWS = ("flatten", "squeeze")
