"""Augmentation of images."""

import math
from numbers import Integral

from sktune.training.augmentation.base import (
    ANGLE,
    FINITE,
    PROPER_SHARE,
    SHARE,
    STRENGTH,
    Augmentation,
)
from sktune.training.augmentation.draws import FLIP, FLIP_VERTICAL
from sktune.training.augmentation.pixels import cut_out, flip, move, set_brightness, set_contrast


class ImageAugmentation(Augmentation):
    """Change images at random, anew in each epoch, while a network is trained.

    A strength of 0 is off. Each image gets numbers of its own, which follow from the seed of the
    fit, the epoch, the batch and the row. Images that are validated on, tested or predicted are
    never changed. The operations come in the order of the parameters; rotation, shift and scale
    are one bilinear interpolation.

    Parameters
    ----------
    p_flip, p_flip_vertical : float, default=0.0
        The probability with which left and right, or top and bottom, are exchanged.
    degrees : float, default=0.0
        The largest angle of a rotation, to either side; at most 180.
    shift : float, default=0.0
        The largest shift in each direction, as a share of the image's width and height: what a
        random crop of a padded image does.
    scale : float, default=0.0
        The largest change of the size: the factor is between ``1 - scale`` and ``1 + scale``.
    contrast : float, default=0.0
        The largest change of the contrast: the factor on the distances from the image's mean is
        between ``1 - contrast`` and ``1 + contrast``.
    brightness : float, default=0.0
        The largest change of the brightness: the factor is between ``1 - brightness`` and
        ``1 + brightness``. Nothing is clipped.
    cutout : float, default=0.0
        The sides of a rectangle that is replaced by `fill`, as a share of the image's sides
        (DeVries and Taylor 2017). Its middle is anywhere in the image.
    mixup : float, default=0.0
        The parameter alpha of mixup; see :class:`TableAugmentation`.
    image_shape : tuple of int, default=None
        (height, width) or (channels, height, width) of the image that a row holds, where X is not
        of the shape (n_rows, channels, height, width).
    fill : float, default=0.0
        What stands outside of an image.

    See Also
    --------
    TableAugmentation : The same for tables.

    Examples
    --------
    Rows that hold images must be told their shape:

    >>> from scipy.stats import uniform
    >>> from sklearn.datasets import load_digits
    >>> from sktune import ImageAugmentation, NeuralNetClassifier, RandomizedSearchCV
    >>> X, y = load_digits(return_X_y=True)
    >>> augment = ImageAugmentation(image_shape=(8, 8))
    >>> net = NeuralNetClassifier(augment=augment, max_epochs=2, random_state=0)
    >>> space = {"augment__degrees": uniform(0, 20), "augment__shift": [0.0, 0.1]}
    >>> search = RandomizedSearchCV(net, space, n_iter=4, cv=2, random_state=0)
    >>> search = search.fit(X[:200] / 16, y[:200])
    >>> [group["lanes"] for group in search.fusion_.groups]
    [8]
    """

    _RANGES = {
        "p_flip": SHARE,
        "p_flip_vertical": SHARE,
        "degrees": ANGLE,
        "shift": SHARE,
        "scale": PROPER_SHARE,
        "contrast": SHARE,
        "brightness": SHARE,
        "cutout": SHARE,
        "mixup": STRENGTH,
        "fill": FINITE,
    }
    _STRENGTHS = tuple(name for name in _RANGES if name != "fill")

    def __init__(
        self, p_flip=0.0, p_flip_vertical=0.0, degrees=0.0, shift=0.0, scale=0.0, contrast=0.0,
        brightness=0.0, cutout=0.0, mixup=0.0, *, image_shape=None, fill=0.0,
    ):  # fmt: skip
        self.p_flip = p_flip
        self.p_flip_vertical = p_flip_vertical
        self.degrees = degrees
        self.shift = shift
        self.scale = scale
        self.contrast = contrast
        self.brightness = brightness
        self.cutout = cutout
        self.mixup = mixup
        self.image_shape = image_shape
        self.fill = fill

    def check(self):
        """Check the ranges of the parameters; see `Augmentation`."""
        super().check()
        shape = self.image_shape
        if shape is None:
            return
        is_shape = isinstance(shape, tuple | list) and len(shape) in (2, 3)
        if not is_shape or not all(isinstance(n, Integral) and n >= 1 for n in shape):
            raise ValueError(
                "augment__image_shape must be (height, width) or (channels, height, width), got "
                f"augment__image_shape={shape!r}"
            )

    def check_rows(self, shape, is_floating):
        """Check that rows of such a shape can be changed; see `Augmentation`."""
        super().check_rows(shape, is_floating)
        if self.image_shape is None and len(shape) != 3:
            raise ValueError(
                "augment='images' must come with images of shape (n_rows, channels, height, "
                f"width), got rows of shape {tuple(shape)}: pass augment__image_shape=(height, "
                "width) for rows that hold images"
            )
        if self.image_shape is not None and math.prod(shape) != math.prod(self.image_shape):
            raise ValueError(
                f"augment__image_shape must have as many numbers as a row, {math.prod(shape)}, "
                f"got augment__image_shape={self.image_shape!r}"
            )

    def change(self, X, draws):
        """Return changed rows; see `Augmentation`."""
        images = X.view(len(X), *self._find_shape(X))  # (R, C, H, W)
        fill = float(self.fill)
        if self.p_flip:
            images = flip(images, 3, self.p_flip, draws.uniform(FLIP, 1))
        if self.p_flip_vertical:
            images = flip(images, 2, self.p_flip_vertical, draws.uniform(FLIP_VERTICAL, 1))
        if self.degrees or self.shift or self.scale:
            images = move(images, self.degrees, self.shift, self.scale, fill, draws)
        if self.contrast:
            images = set_contrast(images, self.contrast, draws)
        if self.brightness:
            images = set_brightness(images, self.brightness, draws)
        if self.cutout:
            images = cut_out(images, self.cutout, fill, draws)
        return images.reshape(X.shape)

    def _find_shape(self, X):
        """Return (channels, height, width) of the images in rows."""
        if self.image_shape is None:
            return X.shape[1:]
        *channels, height, width = self.image_shape
        return (*(channels or (1,)), height, width)
