"""Searches that evaluate their candidates in rounds, and when they stop."""
