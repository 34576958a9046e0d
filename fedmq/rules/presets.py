"""Rules by name: the textbook methods, each one spelling of the four slots."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fedmq.errors import ConfigError
from fedmq.rules.guards import AdaptiveClip, ExamplesBound, Finite, StalenessDiscount
from fedmq.rules.robust.centers import CentredClipping, GeometricMedian
from fedmq.rules.robust.coordinatewise import CoordinateMedian, MeanAroundMedian, SignMajority, TrimmedMean
from fedmq.rules.robust.mixing import NearestMixing
from fedmq.rules.robust.selection import Bulyan, Krum, MultiKrum
from fedmq.rules.rule import Rule
from fedmq.rules.steps import Adagrad, Adam, Momentum, Replace, Yogi
from fedmq.rules.weighers import Blend, ByExamples, ByMetric, QFair, Uniform

if TYPE_CHECKING:
    from collections.abc import Mapping


class Named(NamedTuple):
    """One preset, and what it is for in one line."""

    rule: Rule
    purpose: str


_SOUND = (Finite(), ExamplesBound())

_NAMED: Mapping[str, Named] = {
    # What counts how much
    "average": Named(Rule(weigh=Uniform()), "Every device has one voice."),
    "weighted": Named(Rule(weigh=ByExamples()), "Every example has one voice."),
    "quality": Named(Rule(weigh=ByMetric()), "Devices whose model is the better one count more."),
    "qfedavg": Named(
        Rule(weigh=QFair()), "Devices whose loss is high count more, so that none is left behind."
    ),
    # Federated averaging, and how the model moves
    "fedavg": Named(
        Rule(weigh=ByExamples()),
        "Federated averaging: every example has one voice, after local epochs on some of the devices.",
    ),
    "fedavgm": Named(
        Rule(weigh=ByExamples(), step=Momentum()),
        "Federated averaging whose model rolls on, so that what rounds agree on adds up.",
    ),
    "fedadam": Named(
        Rule(weigh=ByExamples(), step=Adam()),
        "Federated averaging with steps that suit each number of the model.",
    ),
    "fedyogi": Named(
        Rule(weigh=ByExamples(), step=Yogi()),
        "As `fedadam`, with steps that grow back slowly where deltas have become small.",
    ),
    "fedadagrad": Named(
        Rule(weigh=ByExamples(), step=Adagrad()),
        "As `fedadam`, with steps that only ever become shorter.",
    ),
    # Against devices that are broken or hostile
    "clipped": Named(
        Rule((*_SOUND, AdaptiveClip()), ByExamples()),
        "Federated averaging in which no update is longer than the usual one.",
    ),
    "median": Named(
        Rule(reduce=CoordinateMedian()), "The median of each number: half of the devices may lie."
    ),
    "trimmed": Named(Rule(reduce=TrimmedMean()), "The mean of each number without the fifth at each end."),
    "meamed": Named(
        Rule(reduce=MeanAroundMedian()), "The mean of those four fifths that are nearest to the median."
    ),
    "signs": Named(
        Rule(reduce=SignMajority()), "Devices vote on the direction of each number, with one voice each."
    ),
    "rfa": Named(
        Rule(weigh=ByExamples(), reduce=GeometricMedian()),
        "The point with the least sum of distances to all updates, each example with one voice.",
    ),
    "krum": Named(
        Rule(reduce=Krum()), "The one update that has the nearest neighbours; a fifth may send anything."
    ),
    "multi_krum": Named(
        Rule(reduce=MultiKrum()),
        "The mean of the updates that have the nearest neighbours; a fifth may send anything.",
    ),
    "bulyan": Named(
        Rule(reduce=Bulyan()),
        "Krum's choice, then the numbers in the middle of it; a tenth may send anything.",
    ),
    "centred": Named(
        Rule(reduce=CentredClipping()), "What lies far from the last round's result is clipped towards it."
    ),
    "robust": Named(
        Rule(reduce=NearestMixing(inner=TrimmedMean())),
        "The first to try where a fifth may send anything, also on unevenly spread data: each update becomes the mean "
        "of its nearest neighbours, then the fifth at each end is left out.",
    ),
    # For updates that come when they come
    "fedasync": Named(
        Rule((*_SOUND, StalenessDiscount()), step=Replace(0.6)),
        "For single updates as they come: each moves the model by six tenths, or less the older its base is.",
    ),
    "fedbuff": Named(
        Rule((*_SOUND, StalenessDiscount())),
        "For a buffer of updates as they come: their mean, the old ones made shorter.",
    ),
    # Several at once
    "hybrid": Named(
        Rule(weigh=Blend((ByExamples(), ByMetric()), (0.5, 0.5)), step=Momentum(beta=0.5)),
        "Quantity and quality each have half of the say, smoothed from round to round.",
    ),
}

PRESETS: Mapping[str, Rule] = MappingProxyType({name: named.rule for name, named in _NAMED.items()})
"""Every preset.

``fedavg`` is the same rule as ``weighted``: what makes it federated averaging (McMahan et al. 2017) is that devices
train several local epochs between rounds and only a fraction of them takes part in each, which the task and the policy
set. ``fedasync`` (Xie et al. 2019) and ``fedbuff`` (Nguyen et al. 2022) are the rules' halves of these methods: that
updates come one by one, or by the buffer, is the policy's to say.
"""

PURPOSES: Mapping[str, str] = MappingProxyType({name: named.purpose for name, named in _NAMED.items()})
"""What each preset is for, in one line."""


def preset(name: str) -> Rule:
    """Return the rule called `name`; raise ConfigError, naming the nearest, where there is none."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(PRESETS)}"
    raise ConfigError(f"there is no rule {name!r}: {hint}")
