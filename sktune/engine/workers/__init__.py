"""Groups that other processes or machines train."""
