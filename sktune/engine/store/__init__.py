"""What was trained is kept here, so that nothing is trained twice."""

from sktune.engine.store.base import Record, Store
from sktune.engine.store.folder import FolderStore
from sktune.engine.store.memory import MemoryStore

__all__ = ["FolderStore", "MemoryStore", "Record", "Store"]
