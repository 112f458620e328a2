"""What all ways to train have in common."""

from sktune.training.divergence import DivergenceError

__all__ = ["DivergenceError"]
