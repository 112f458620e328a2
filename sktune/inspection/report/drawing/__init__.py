"""Pictures of a search as inline SVG, without another library."""

from sktune.inspection.report.drawing.curves import draw_curves
from sktune.inspection.report.drawing.effects import draw_effect
from sktune.inspection.report.drawing.history import draw_history
from sktune.inspection.report.drawing.shares import draw_shares

__all__ = ["draw_curves", "draw_effect", "draw_history", "draw_shares"]
