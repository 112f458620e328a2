"""The machine: seeds, threads, devices, floating types."""
