"""The kernel in Triton's language, which is imported only where Triton is installed."""
