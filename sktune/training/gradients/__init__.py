"""What is done to gradients before the optimizer takes its step."""
