"""The data files inside the package: read once, checked against a pinned hash, never unpickled."""

from __future__ import annotations

import hashlib
import io
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# tools/convert_datasets.py prints these lines.
PINS = {
    "smartwatch/person-01.npz": "ef10cbeaeb399446055a99f62d4471eb8edec9aabdaa48d25ec7270e533dd13f",
    "smartwatch/person-02.npz": "57892207c11827c77dc47236616acf845275ebccd898fc2e01a93931f075e3d3",
    "smartwatch/person-03.npz": "1081c6ea25570f93b0edd62742787ad8491766894bb6414d8bf39b90ec86c0a4",
    "smartwatch/person-04.npz": "195b553533d370afeaf196254ba00009adc7282e836bf05c786b3b8df1376b5d",
    "smartwatch/person-05.npz": "749a88dacb09973cbc05bde88aba31a86a4d196139440d497d94993bf577ea91",
    "smartwatch/person-06.npz": "8d4d630eb8288ed1415cd8a127120457fec25a54e5f0735cd6ef1f6b9e2fa3d5",
    "smartwatch/person-07.npz": "66e453b513287b7435495c98e1130c4770b2f91a0f1ae44174442e049883e4af",
    "smartwatch/person-08.npz": "644b70ba4fcda5d4f94f2a3d152a7cedc204669575e23162ddfd0bc429ec6e4a",
    "smartwatch/person-09.npz": "19438ca64ed64e1f1d9318dc0f2df3f8723b4fc3bc0fc0fb6fb46808a3c885e7",
    "smartwatch/person-10.npz": "7908c2038400fbe70bcff023b300a185c369ab50e0e0ade12e02c9fd0073385a",
    "mnist_5k/images.npz": "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4",
}
"""sha256 of every data file, by its path inside `fedmq/datasets`."""


def read(name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of the file called `name` in `PINS`, by their names in the file.

    Raises `StoreError` when the file is missing or is not, to the bit, the one that was pinned.
    """
    raw = _bytes(name)
    if hashlib.sha256(raw).hexdigest() != PINS[name]:
        raise StoreError(f"{name} differs from the file fedmq was released with: install the package again")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        return dict(arrays)


def _bytes(name: str) -> bytes:
    try:
        return resources.files(__package__).joinpath(name).read_bytes()
    except OSError as error:
        raise StoreError(f"{name} cannot be read ({error.strerror}): install the package again") from error
