"""Reading of modules and rows into what the compiled kernels take."""
