"""A whole fleet's examples, where the backend computes: all devices' rows one after the other, each array once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.shares import Share, check_labels, map_arrays, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.engines.stacking.calculus import Nest

_LARGE: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Holdings:
    """`parts` is (x,), (x, y) or (x, y, weights) of everyone; `begins` and `rows` say which rows are a device's."""

    parts: Nest
    begins: Mapping[str, int]
    rows: Mapping[str, int]

    @property
    def usual(self) -> int:
        """How many rows a device has: the median."""
        return int(np.median(list(self.rows.values())))

    def is_large(self, rows: int) -> bool:
        """Tell a share so much larger than the usual one that nobody could keep step with it in a stack."""
        return rows >= _LARGE * self.usual

    @classmethod
    def of(cls, shares: Mapping[str, Share], put: Callable[[Any], Any]) -> Holdings:
        """Join the shares of all devices. Raises ConfigError where two are not of one kind."""
        first, kind = next(iter(shares.items()))
        for device, other in shares.items():
            if _kind(other) != _kind(kind):
                raise ConfigError(
                    f"the examples of {device} and of {first} differ in shape or type ({_kind(other)} and "
                    f"{_kind(kind)}): an engine that stacks devices needs them alike"
                )
        rows = {device: each.rows for device, each in shares.items()}
        ends = np.cumsum(list(rows.values())).tolist()
        begins = {device: end - count for (device, count), end in zip(rows.items(), ends, strict=True)}
        return cls(_joined([each.parts for each in shares.values()], put), begins, rows)


def shares_of(given: Mapping[str, object], what: str, classes: int | None) -> dict[str, Share]:
    """Return everyone's examples as arrays, checked. Raises ConfigError, naming the device, for what cannot be used."""
    found = {}
    for device, data in given.items():
        if hasattr(data, "element_spec"):
            raise ConfigError(
                f"{what} of {device} is a tf.data.Dataset: an engine that stacks devices needs arrays; take engine "
                "'tensorflow', or return arrays"
            )
        try:
            found[device] = share(data if isinstance(data, tuple) else (data,), what)
            if classes is not None:
                check_labels(np.asarray(found[device].parts[1]), classes, what)
        except ConfigError as error:
            raise ConfigError(f"{device}: {error}") from error
    return found


def _kind(given: Share) -> str:
    return str(tuple(map_arrays(lambda array: (array.dtype.name, array.shape[1:]), given.parts)))  # type: ignore[arg-type]  # parts are a tuple


def _joined(several: Sequence[Any], put: Callable[[Any], Any]) -> Any:  # noqa: ANN401  # a nest
    first = several[0]
    if isinstance(first, dict):
        return {name: _joined([each[name] for each in several], put) for name in first}
    if isinstance(first, tuple):
        return tuple(_joined(list(parts), put) for parts in zip(*several, strict=True))
    return put(np.concatenate(several))
