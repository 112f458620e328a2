"""Ensembles of the models that a search has trained anyway."""
