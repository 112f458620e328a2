"""Pooling as layers: which are read, and the layers that compute what functions do."""

import torch
from torch import nn
from torch.nn import functional as F

from sktune.modules.tracing.operations import Unreadable

POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)


def _make_max_pool(layer_class):
    def make(
        kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
    ):
        if return_indices:
            raise Unreadable("it asks a pooling for the places of its numbers")
        return layer_class(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)

    return make


def _make_average_pool1d(
    kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    return nn.AvgPool1d(kernel_size, stride, padding, ceil_mode, count_include_pad)


def _make_average_pool2d(
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    return nn.AvgPool2d(
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _make_adaptive_pool(layer_class):
    def make(output_size, return_indices=False):
        if return_indices:
            raise Unreadable("it asks a pooling for the places of its numbers")
        return layer_class(output_size)

    return make


# The layer that computes the same as a function of one tensor.
POOL_FUNCTIONS = {
    F.max_pool1d: _make_max_pool(nn.MaxPool1d),
    torch.max_pool1d: _make_max_pool(nn.MaxPool1d),
    F.max_pool2d: _make_max_pool(nn.MaxPool2d),
    torch.max_pool2d: _make_max_pool(nn.MaxPool2d),
    F.avg_pool1d: _make_average_pool1d,
    F.avg_pool2d: _make_average_pool2d,
    F.adaptive_avg_pool1d: _make_adaptive_pool(nn.AdaptiveAvgPool1d),
    F.adaptive_avg_pool2d: _make_adaptive_pool(nn.AdaptiveAvgPool2d),
    F.adaptive_max_pool1d: _make_adaptive_pool(nn.AdaptiveMaxPool1d),
    F.adaptive_max_pool2d: _make_adaptive_pool(nn.AdaptiveMaxPool2d),
}
