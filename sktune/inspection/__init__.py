"""Looks into a network's training, before and after it."""

from sktune.inspection.advice import Finding
from sktune.inspection.batch_size import find_max_batch_size
from sktune.inspection.effects import (
    ImportanceDisplay,
    ParameterImportance,
    effect_table,
    importance,
)
from sktune.inspection.lr_range import lr_range_test
from sktune.inspection.lr_range_display import LRRangeDisplay
from sktune.inspection.lr_range_result import LRRangeResult
from sktune.inspection.report import report

__all__ = [
    "Finding",
    "ImportanceDisplay",
    "LRRangeDisplay",
    "LRRangeResult",
    "ParameterImportance",
    "effect_table",
    "find_max_batch_size",
    "importance",
    "lr_range_test",
    "report",
]
