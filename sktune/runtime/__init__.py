"""What does not depend on networks: seeds, threads, devices, floating types, names."""
