"""Modules, and what can be read from them."""

from sktune.modules.mlp import MLP

__all__ = ["MLP"]
