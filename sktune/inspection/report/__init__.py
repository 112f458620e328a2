"""A search as one HTML file."""
