"""Operations on images (R, C, H, W), each row with numbers of its own."""

import math

import torch
from torch.nn import functional as F

from sktune.runtime.dtypes import wide_dtype
from sktune.training.augmentation.draws import AFFINE, BRIGHTNESS, CONTRAST, CUTOUT


def flip(images, axis, p, numbers):
    """Reverse an axis of the images whose numbers (R, 1) are below p."""
    is_flipped = (numbers < float(p)).view(-1, 1, 1, 1)
    return torch.where(is_flipped, images.flip(axis), images)


def move(images, degrees, shift, scale, fill, draws):
    """Rotate, shift and scale images, with bilinear interpolation.

    Parameters
    ----------
    images : Tensor (R, C, H, W)
    degrees, shift, scale : float
        The largest angle, the largest shift as a share of the image, and the largest change of the
        factor on the size.
    fill : float
        What stands outside of an image.
    draws : Draws
    """
    height, width = images.shape[2:]
    numbers = draws.around_zero(AFFINE, 4).unbind(1)  # each (R,)
    angle = math.radians(float(degrees)) * numbers[0]
    size = 1 + float(scale) * numbers[1]
    # torch's coordinates run from -1 to 1 over the image
    right = 2 * float(shift) * numbers[2]
    down = 2 * float(shift) * numbers[3]
    cos = angle.cos() / size
    sin = angle.sin() / size
    rows = [cos, sin * (-height / width), right, sin * (width / height), cos, down]
    theta = torch.stack(rows, 1).view(-1, 2, 3)
    # in half precision a coordinate would miss its pixel
    dtype = wide_dtype(images.dtype)
    grid = F.affine_grid(theta.to(dtype), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.to(dtype) - fill, grid, align_corners=False) + fill
    return moved.to(images.dtype)


def set_contrast(images, contrast, draws):
    """Multiply the distances of pixels from the mean of their image."""
    factor = 1 + float(contrast) * draws.around_zero(CONTRAST, 1)  # (R, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * factor.view(-1, 1, 1, 1)


def set_brightness(images, brightness, draws):
    """Multiply the pixels of an image."""
    factor = 1 + float(brightness) * draws.around_zero(BRIGHTNESS, 1)  # (R, 1)
    return images * factor.view(-1, 1, 1, 1)


def cut_out(images, side, fill, draws):
    """Replace a rectangle whose sides are a share of the image's."""
    middle = draws.uniform(CUTOUT, 2)  # (R, 2)
    height, width = images.shape[2:]
    is_in_rows = _is_near(middle[:, :1], height, side)  # (R, H)
    is_in_columns = _is_near(middle[:, 1:], width, side)  # (R, W)
    is_cut = is_in_rows[:, None, :, None] & is_in_columns[:, None, None, :]
    return images.masked_fill(is_cut, fill)


def _is_near(middle, n, side):
    """Tell which of n pixels in a line are within half a side of the middle."""
    positions = (torch.arange(n, dtype=middle.dtype, device=middle.device) + 0.5) / n
    return (positions - middle).abs() < float(side) / 2
