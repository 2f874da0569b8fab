"""Numba kernels: arrays in, arrays out; no IO, no configuration, no global state."""
