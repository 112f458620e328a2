"""What the compiled kernels do to gradients before the optimizer takes its step."""
