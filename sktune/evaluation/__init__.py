"""A test set that stays sealed until one final evaluation."""

from sktune.evaluation.holdout import HoldoutSearch

__all__ = ["HoldoutSearch"]
