"""Reading of a user's module as a chain of layers, however its ``forward`` is written."""
