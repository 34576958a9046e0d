"""Five thousand handwritten digits out of MNIST, 500 of each.

Source: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
`mnist_5k/PROVENANCE.md` says how the file was made and under which licence it stands.
"""

from __future__ import annotations

import numpy as np

from fedmq.datasets.dataset import Dataset
from fedmq.datasets.files import read
from fedmq.errors import MisuseError

DIGITS = tuple("0123456789")


def mnist(*, test: int = 1000, seed: int = 0) -> Dataset:
    """Return the digits in an order drawn from `seed`, the first `test` of them held out.

    `x` has shape (images, 28, 28, 1): 0.0 is paper, 1.0 is ink. Nobody owns an image.

    Raises `MisuseError` when `test` leaves nothing on one side, and `StoreError` when the file is damaged.
    """
    stored = read("mnist_5k/images.npz")
    total = len(stored["labels"])
    if not 0 < test < total:
        raise MisuseError(f"test is {test}: of {total} images at least one is held out and one is not")
    order = np.random.Generator(np.random.Philox(seed)).permutation(total)
    x = np.divide(stored["images"][order, :, :, np.newaxis], 255, dtype=np.float32)
    y = stored["labels"][order].astype(np.int64)
    return Dataset(x[test:], y[test:], None, x[:test], y[:test], None, classes=DIGITS)
