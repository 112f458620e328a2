"""Fits that a net makes by itself, in a context that has a cache."""
