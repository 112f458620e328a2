"""Between scikit-learn and the engine: the joblib backend, tasks read into fits, results handed back."""
