"""The fused engine: many fits, trained together."""
