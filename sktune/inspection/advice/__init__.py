"""What can be read from a search, and what to do about it."""

from sktune.inspection.advice.finding import Finding

__all__ = ["Finding"]
