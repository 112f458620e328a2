"""Criteria of the compiled kernels: which are known, and how they are computed."""
