"""How steps are recorded by a GPU and replayed: see :mod:`sktune.engine.steps.recorded`."""
