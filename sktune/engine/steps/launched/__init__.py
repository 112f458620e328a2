"""Steps that a GPU takes in one launch for each epoch: see :mod:`.backend`."""
