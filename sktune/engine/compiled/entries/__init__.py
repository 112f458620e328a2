"""Parts of a compiled step that are compiled when a network first needs them, each by itself."""
