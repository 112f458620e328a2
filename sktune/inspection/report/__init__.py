"""A search as one HTML file."""

from sktune.inspection.report.writing import report

__all__ = ["report"]
