"""How many devices' updates become one model: rules of four small slots, freely combined.

`Rule(guards, weigh, reduce, step)` holds the slots; the parts that fit into them are listed by kind in `GUARDS`,
`WEIGHERS`, `REDUCERS` and `STEPS`, whole rules by name in `PRESETS`. To add a part, write one class and one row of its
table: laws, documentation and configuration take it from there.
"""

from fedmq.rules.claim import Claim
from fedmq.rules.fold import Fold, Tally
from fedmq.rules.guard import GUARDS, ExamplesBound, Finite, Guard, NormClip
from fedmq.rules.memory import Memory
from fedmq.rules.presets import PRESETS, preset
from fedmq.rules.reduce import REDUCERS, Mean, Reducer, Sums
from fedmq.rules.rule import Absorbed, AnyRule, Outcome, Prepared, Reduced, Rule
from fedmq.rules.step import STEPS, Adam, Momentum, Replace, Step
from fedmq.rules.weigh import WEIGHERS, Blend, ByExamples, ByMetric, Transform, Uniform, Weigher

__all__ = [
    "GUARDS",
    "PRESETS",
    "REDUCERS",
    "STEPS",
    "WEIGHERS",
    "Absorbed",
    "Adam",
    "AnyRule",
    "Blend",
    "ByExamples",
    "ByMetric",
    "Claim",
    "ExamplesBound",
    "Finite",
    "Fold",
    "Guard",
    "Mean",
    "Memory",
    "Momentum",
    "NormClip",
    "Outcome",
    "Prepared",
    "Reduced",
    "Reducer",
    "Replace",
    "Rule",
    "Step",
    "Sums",
    "Tally",
    "Transform",
    "Uniform",
    "Weigher",
    "preset",
]
