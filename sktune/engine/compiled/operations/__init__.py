"""Operations of the compiled kernels, forward and backward, and the tables that they write to."""
