"""Between scikit-learn and the engine: tasks become fits, and trained fits become results."""
