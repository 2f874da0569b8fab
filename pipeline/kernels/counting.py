"""Reference counts in compiled functions.

A function that takes a `Workspace` counts a reference to each of its arrays up when called and down when it returns,
one locked memory access each: 0.4 us and more a call. `@njit(..., **UNCOUNTED)` does not. Such a function may slice
arrays, but not allocate any, nor raise with arguments that are known only at run time. The functions that it calls are
compiled like it, if it is the first to call them, unless they are COUNTED; those may do both.
"""

from __future__ import annotations

from typing import Any

UNCOUNTED: dict[str, Any] = {"_nrt": False}
COUNTED: dict[str, Any] = {"_nrt": True}
