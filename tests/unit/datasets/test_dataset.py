"""A dataset's arrays belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmq.datasets import Dataset
from fedmq.errors import MisuseError

TEN = np.zeros(10, np.int64)
X = np.zeros((10, 3), np.float32)


def test_holds_what_belongs_together() -> None:
    data = Dataset(X, TEN, TEN, X[:4], TEN[:4], TEN[:4], classes=("zero",))
    assert (len(data.x), len(data.x_test), data.owners) == (10, 4, ())


@pytest.mark.parametrize("name", ["y", "owner", "y_test", "owner_test"])
def test_names_the_array_that_is_too_short(name: str) -> None:
    right = Dataset(X, TEN, TEN, X, TEN, TEN, classes=("zero",))
    with pytest.raises(MisuseError, match=rf"^{name} has 9 rows and there are 10 examples"):
        replace(right, **{name: TEN[:9]})  # type: ignore[arg-type]
