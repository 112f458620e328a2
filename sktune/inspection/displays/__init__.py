"""Pictures of a search: its losses, and its scores by parameter."""

from sktune.inspection.displays.halving_display import HalvingDisplay
from sktune.inspection.displays.loss_curve_display import LossCurveDisplay
from sktune.inspection.displays.search_display import SearchDisplay

__all__ = ["HalvingDisplay", "LossCurveDisplay", "SearchDisplay"]
