"""What notebooks show of a fitted search or network, above scikit-learn's diagram."""

from sktune.inspection.notebook.writing import write_summary

__all__ = ["write_summary"]
