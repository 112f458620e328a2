"""scikit-learn's callbacks (SLEP 23): how a fit tells them of its epochs."""
