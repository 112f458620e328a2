"""The ways to take training steps in many nets."""
