"""What spreads groups over workers: joblib, Dask and Ray."""
