"""What was trained is kept here, so that nothing is trained twice."""

from sktune.engine.store.base import Record, Store
from sktune.engine.store.memory import MemoryStore

__all__ = ["MemoryStore", "Record", "Store"]
