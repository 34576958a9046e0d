"""Rules made of rules: by layer, by schedule, by cluster. Each is a rule itself, so they nest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.rules.hybrids.clusters import ByCluster, Phase
from fedmq.rules.hybrids.layers import ByLayer, Part
from fedmq.rules.hybrids.plateau import Plateau
from fedmq.rules.hybrids.schedule import BySchedule, Stage

if TYPE_CHECKING:
    from fedmq.rules.rule import AnyRule

HYBRIDS: dict[str, type[AnyRule]] = {
    "by_layer": ByLayer,
    "by_schedule": BySchedule,
}
"""Every rule made of rules, by the `kind` that configuration names it with in ``[rule]``.

`ByCluster` is not among them: devices have their part in it, so it is configured as the algorithm `clusters`.
"""

__all__ = ["HYBRIDS", "ByCluster", "ByLayer", "BySchedule", "Part", "Phase", "Plateau", "Stage"]
