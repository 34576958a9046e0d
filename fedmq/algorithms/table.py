"""Algorithms by name, and what a task's training settings say of them."""

from __future__ import annotations

import dataclasses
import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING

from fedmq.algorithms.algorithm import Algorithm, Plain, Setting
from fedmq.algorithms.clusters import Clusters
from fedmq.algorithms.differences import Differences
from fedmq.algorithms.feddyn import FedDyn
from fedmq.algorithms.fednova import FedNova
from fedmq.algorithms.fedprox import FedProx
from fedmq.algorithms.scaffold import Scaffold
from fedmq.errors import ConfigError, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS: Mapping[str, type[Algorithm]] = MappingProxyType(
    {found.kind: found for found in (Plain, FedProx, Scaffold, FedNova, FedDyn, Clusters, Differences)}
)
"""Every algorithm by the `kind` that configuration and tasks name it with."""

_NAME = "algorithm"


def told(training: Mapping[str, Setting]) -> tuple[Algorithm, dict[str, Setting]]:
    """Return the algorithm that a task's `training` tells of, and the settings that are left for the trainer.

    ``algorithm`` is the kind, ``algorithm.<field>`` its numbers; without them it is `Plain`. Raises Refused, in a
    sentence for the device's owner, where this fedmq does not know the kind or a field, or a number is out of range.
    """
    rest = {name: value for name, value in training.items() if name.partition(".")[0] != _NAME}
    fields = {name.partition(".")[2]: value for name, value in training.items() if name not in rest}
    kind = fields.pop("", Plain.kind)
    found = ALGORITHMS.get(str(kind))
    if found is None:
        raise Refused(
            f"the task is for algorithm {kind!r}, this device knows {', '.join(ALGORITHMS)}: update its fedmq"
        )
    return _made(found, fields), rest


def _made(kind: type[Algorithm], fields: Mapping[str, Setting]) -> Algorithm:
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # every row is a dataclass
    for name in fields:
        if name not in known:
            near = "".join(
                f" (did they mean {word!r}?)" for word in difflib.get_close_matches(name, known, n=1)
            )
            raise Refused(
                f"the task sets {name!r} of {kind.kind}, which this device does not know{near}: update its fedmq"
            )
    try:
        return kind(**fields)
    except (ConfigError, TypeError) as error:
        raise Refused(f"the task's {kind.kind} cannot be used: {error}") from None
