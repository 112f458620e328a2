"""Convolutions and pooling of the compiled kernels, over one or two dimensions of space."""
