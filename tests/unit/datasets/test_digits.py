"""The handwritten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.datasets import mnist
from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_shapes_types_and_range() -> None:
    data = mnist()
    assert (data.x.shape, data.x_test.shape) == ((4000, 28, 28, 1), (1000, 28, 28, 1))
    assert (str(data.x.dtype), str(data.y.dtype), data.owner) == ("float32", "int64", None)
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert data.classes == tuple("0123456789")


def test_every_image_is_on_one_side_whatever_the_seed() -> None:
    one, two = mnist(test=700, seed=1), mnist(test=2000, seed=2)
    assert _names(one.x) | _names(one.x_test) == _names(two.x) | _names(two.x_test)
    assert len(one.x) + len(one.x_test) == len(two.x) + len(two.x_test) == 5000
    assert not _names(one.x) & _names(one.x_test)
    np.testing.assert_array_equal(np.bincount(np.concatenate([one.y, one.y_test])), np.full(10, 500))


def test_the_seed_alone_decides_the_order() -> None:
    np.testing.assert_array_equal(mnist(seed=3).y, mnist(seed=3).y)
    assert (mnist(seed=3).y != mnist(seed=4).y).any()


def test_images_belong_to_their_labels() -> None:
    """The nearest mean image names most held-out digits; with labels out of step it would name one in ten."""
    data = mnist()
    means = np.stack([data.x[data.y == digit].mean(0).ravel() for digit in range(10)])
    distance = ((data.x_test.reshape(-1, 1, 784) - means) ** 2).sum(-1)
    assert (distance.argmin(1) == data.y_test).mean() > 0.75


@pytest.mark.parametrize("test", [0, -1, 5000, 6000])
def test_refuses_to_leave_one_side_empty(test: int) -> None:
    with pytest.raises(MisuseError, match=f"test is {test}: of 5000 images"):
        mnist(test=test)


def _names(images: NDArray[np.float32]) -> set[bytes]:
    return {image.tobytes() for image in images}
