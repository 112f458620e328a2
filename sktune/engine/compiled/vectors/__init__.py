"""Code of LLVM for the kernels, which Numba has no words for: vectors, products, sums, choices."""
