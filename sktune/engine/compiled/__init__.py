"""Training steps of one small net, compiled by Numba."""
