"""Activations of the compiled kernels, each with its derivative.

Each function works in place on a table of any layout: it replaces the `values` by the outputs of
the activation, and multiplies `slope` by the derivatives. Padding is computed along with the rest.
"""
