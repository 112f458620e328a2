"""What all ways to train have in common."""

from sktune.training.augmentation import ImageAugmentation, TableAugmentation
from sktune.training.divergence import DivergenceError

__all__ = ["DivergenceError", "ImageAugmentation", "TableAugmentation"]
