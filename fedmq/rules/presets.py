"""Rules by name: the textbook methods, each one spelling of the four slots."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING

from fedmq.errors import ConfigError
from fedmq.rules.rule import Rule
from fedmq.rules.step import Adam, Momentum
from fedmq.rules.weigh import Blend, ByExamples, ByMetric, Uniform

if TYPE_CHECKING:
    from collections.abc import Mapping

PRESETS: Mapping[str, Rule] = MappingProxyType(
    {
        "average": Rule(weigh=Uniform()),
        "weighted": Rule(weigh=ByExamples()),
        "quality": Rule(weigh=ByMetric()),
        "fedavg": Rule(weigh=ByExamples()),
        "fedavgm": Rule(weigh=ByExamples(), step=Momentum()),
        "fedadam": Rule(weigh=ByExamples(), step=Adam()),
        "hybrid": Rule(weigh=Blend((ByExamples(), ByMetric()), (0.5, 0.5)), step=Momentum(beta=0.5)),
    }
)
"""Every preset.

``fedavg`` is the same rule as ``weighted``: what makes it federated averaging (McMahan et al. 2017) is that devices
train several local epochs between rounds and only a fraction of them takes part in each, which the task and the policy
set. ``hybrid`` gives half of the result to quantity (examples), half to quality (reported accuracy), and smooths rounds
with a little momentum.
"""


def preset(name: str) -> Rule:
    """Return the rule called `name`; raise ConfigError, naming the nearest, where there is none."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(PRESETS)}"
    raise ConfigError(f"there is no rule {name!r}: {hint}")
