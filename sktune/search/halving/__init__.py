"""Searches that give many candidates little, and more and more to the best of them."""
