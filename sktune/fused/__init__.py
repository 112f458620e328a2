"""The fused engine: the fits of a search, trained together."""
