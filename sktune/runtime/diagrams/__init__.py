"""How estimators and searches are shown in notebooks."""
