"""Whether one core with compiled steps is faster than torch on several: measured, and kept."""
