"""Looks into a network's training, before and after it."""

from sktune.inspection.advice import Finding, Findings, diagnose, list_important
from sktune.inspection.batch_size import find_max_batch_size
from sktune.inspection.displays import HalvingDisplay, LossCurveDisplay, SearchDisplay
from sktune.inspection.effects import (
    ImportanceDisplay,
    ParameterImportance,
    effect_table,
    importance,
)
from sktune.inspection.lr_range import lr_range_test
from sktune.inspection.lr_range_display import LRRangeDisplay
from sktune.inspection.lr_range_result import LRRangeResult
from sktune.inspection.notebook import write_summary as _write_summary
from sktune.inspection.report import report
from sktune.runtime.diagrams.notebooks import register_summary as _register_summary

__all__ = [
    "Finding",
    "HalvingDisplay",
    "Findings",
    "ImportanceDisplay",
    "LRRangeDisplay",
    "LRRangeResult",
    "LossCurveDisplay",
    "ParameterImportance",
    "SearchDisplay",
    "diagnose",
    "effect_table",
    "find_max_batch_size",
    "importance",
    "list_important",
    "lr_range_test",
    "report",
]

_register_summary(_write_summary)
