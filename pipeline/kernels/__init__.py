"""Numba kernels: arrays in, arrays out; no IO, no configuration, no global state.

The one thing done on import is to choose the folder of compiled code, which numba reads when a kernel is declared.
"""

from pipeline.kernels.compiled import use_compiled_cache

use_compiled_cache()
