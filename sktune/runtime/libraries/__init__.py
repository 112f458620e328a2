"""Other libraries, which are not always installed."""
