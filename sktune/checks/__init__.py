"""What users bring, checked before anything changes."""
