"""How many devices' updates become one model: rules of four small slots, freely combined.

`Rule(guards, weigh, reduce, step)` holds the slots; the parts that fit into them are listed by kind in `GUARDS`,
`WEIGHERS`, `REDUCERS` and `STEPS`, rules made of rules in `HYBRIDS`, whole rules by name in `PRESETS`. To add a part,
write one class and one row of its table: laws, documentation and configuration take it from there.
"""

from fedmq.rules.claim import Claim
from fedmq.rules.fold import Fold, Tally
from fedmq.rules.guards import (
    GUARDS,
    AdaptiveClip,
    CustomGuard,
    ExamplesBound,
    Finite,
    Guard,
    NormBound,
    NormClip,
    RelativeNormBound,
    Similarity,
    StalenessBound,
    StalenessDiscount,
)
from fedmq.rules.hybrids import HYBRIDS, ByCluster, ByLayer, BySchedule, Part, Plateau, Stage
from fedmq.rules.memory import Memory
from fedmq.rules.needs import Needs, strictest
from fedmq.rules.presets import PRESETS, preset
from fedmq.rules.reduce import Mean, Reducer, Sums, Traits
from fedmq.rules.reducers import REDUCERS
from fedmq.rules.robust.centers import CentredClipping, GeometricMedian, NormFiltered
from fedmq.rules.robust.coordinatewise import CoordinateMedian, MeanAroundMedian, SignMajority, TrimmedMean
from fedmq.rules.robust.diameter import MinimumDiameter
from fedmq.rules.robust.mixing import Bucketing, NearestMixing
from fedmq.rules.robust.rows import FromRows, Rows
from fedmq.rules.robust.selection import Bulyan, Krum, MultiKrum
from fedmq.rules.robust.view import View
from fedmq.rules.rule import Absorbed, AnyRule, Outcome, Prepared, Reduced, Rule
from fedmq.rules.steps import (
    STEPS,
    Adagrad,
    Adam,
    CustomStep,
    ModelAverage,
    Momentum,
    Replace,
    Scheduled,
    Step,
    Yogi,
)
from fedmq.rules.weighers import (
    WEIGHERS,
    Blend,
    ByExamples,
    ByFreshness,
    ByMetric,
    CustomWeigher,
    InverseVariance,
    Product,
    QFair,
    Transform,
    Uniform,
    Weighed,
    Weigher,
)

__all__ = [
    "GUARDS",
    "HYBRIDS",
    "PRESETS",
    "REDUCERS",
    "STEPS",
    "WEIGHERS",
    "Absorbed",
    "Adagrad",
    "Adam",
    "AdaptiveClip",
    "AnyRule",
    "Blend",
    "Bucketing",
    "Bulyan",
    "ByCluster",
    "ByExamples",
    "ByFreshness",
    "ByLayer",
    "ByMetric",
    "BySchedule",
    "CentredClipping",
    "Claim",
    "CoordinateMedian",
    "CustomGuard",
    "CustomStep",
    "CustomWeigher",
    "ExamplesBound",
    "Finite",
    "Fold",
    "FromRows",
    "GeometricMedian",
    "Guard",
    "InverseVariance",
    "Krum",
    "Mean",
    "MeanAroundMedian",
    "Memory",
    "MinimumDiameter",
    "ModelAverage",
    "Momentum",
    "MultiKrum",
    "NearestMixing",
    "Needs",
    "NormBound",
    "NormClip",
    "NormFiltered",
    "Outcome",
    "Part",
    "Plateau",
    "Prepared",
    "Product",
    "QFair",
    "Reduced",
    "Reducer",
    "RelativeNormBound",
    "Replace",
    "Rows",
    "Rule",
    "Scheduled",
    "SignMajority",
    "Similarity",
    "Stage",
    "StalenessBound",
    "StalenessDiscount",
    "Step",
    "Sums",
    "Tally",
    "Traits",
    "Transform",
    "TrimmedMean",
    "Uniform",
    "View",
    "Weighed",
    "Weigher",
    "Yogi",
    "preset",
    "strictest",
]
