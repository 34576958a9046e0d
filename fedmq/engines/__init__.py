"""Engines: many devices' trainings in one process, each as if its device had trained alone.

A `Trainer` is one device's; an `Engine` holds the data of a whole fleet and is told with every `Job` whose turn it is.
That lets it stack devices into one computation, share one compiled model, or run one device after the other on
single-threaded kernels: whatever is fastest where it runs. `Front` stands before it and looks like a trainer to each
device, so that the code of a device is the same in a simulation as on a Raspberry Pi.

Nothing imports engines but `fedmq.simulate`, and an engine's framework is imported when the engine is made.
"""

from fedmq.engines.engine import Engine, Job
from fedmq.engines.front import Front, SharedTrainer

__all__ = ["Engine", "Front", "Job", "SharedTrainer"]
