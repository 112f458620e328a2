"""Work on a GPU that does not wait for it."""
