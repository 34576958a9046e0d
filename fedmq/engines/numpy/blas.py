"""One thread for NumPy's matrix products: on matrices as small as these, several stand in each other's way."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

import numpy as np

_SETTERS: Final = (
    "scipy_openblas_set_num_threads64_",  # NumPy's own wheels since 2.0
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


def one_thread() -> bool:
    """Let the OpenBLAS that came with NumPy use one thread; return whether it does.

    Any other BLAS takes its number from the environment, before Python starts: ``OMP_NUM_THREADS=1``.
    """
    libraries = Path(np.__file__).parent.with_name("numpy.libs")
    for path in sorted(libraries.glob("*openblas*")):
        library = ctypes.CDLL(str(path))  # already loaded: this is a second handle to the same
        for name in _SETTERS:
            if setter := getattr(library, name, None):
                setter(ctypes.c_int(1))
                return True
    return "1" in {os.environ.get("OPENBLAS_NUM_THREADS"), os.environ.get("OMP_NUM_THREADS")}
