"""What each parameter of a search has done to the score."""

from sktune.inspection.effects.importance import ParameterImportance, importance
from sktune.inspection.effects.importance_display import ImportanceDisplay
from sktune.inspection.effects.table import effect_table

__all__ = ["ImportanceDisplay", "ParameterImportance", "effect_table", "importance"]
