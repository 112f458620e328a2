"""Looks into a network's training, before and after it."""

from sktune.inspection.lr_range import lr_range_test
from sktune.inspection.lr_range_display import LRRangeDisplay
from sktune.inspection.lr_range_result import LRRangeResult

__all__ = ["LRRangeDisplay", "LRRangeResult", "lr_range_test"]
