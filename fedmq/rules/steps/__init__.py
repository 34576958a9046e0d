"""Steps: the last slot of a rule. Each says how the model moves when the round's one delta is known.

Statistics (batch norm's mean and variance) always become ``model + delta``, the devices' average: an optimizer's step
could make a variance negative. What follows is said of the trainable numbers.

All arithmetic is float64; models and memory are kept in float32.
"""

from fedmq.rules.steps.adaptive import Adagrad, Adam, Yogi
from fedmq.rules.steps.average import Averaging, ModelAverage
from fedmq.rules.steps.custom import CustomStep
from fedmq.rules.steps.interface import Step
from fedmq.rules.steps.plain import Momentum, Replace
from fedmq.rules.steps.schedule import Curve, Scheduled

STEPS: dict[str, type[Step]] = {
    "replace": Replace,
    "momentum": Momentum,
    "adam": Adam,
    "yogi": Yogi,
    "adagrad": Adagrad,
    "scheduled": Scheduled,
    "model_average": ModelAverage,
    "custom_step": CustomStep,
}
"""Every step by the `kind` that configuration names it with."""

__all__ = [
    "STEPS",
    "Adagrad",
    "Adam",
    "Averaging",
    "Curve",
    "CustomStep",
    "ModelAverage",
    "Momentum",
    "Replace",
    "Scheduled",
    "Step",
    "Yogi",
]
