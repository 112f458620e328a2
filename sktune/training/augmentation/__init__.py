"""Augmentation: rows that are changed at random in each epoch, in training only."""

from sktune.training.augmentation.images import ImageAugmentation
from sktune.training.augmentation.table import TableAugmentation

__all__ = ["ImageAugmentation", "TableAugmentation"]
