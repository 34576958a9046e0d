"""Trains any compiled Keras model on TensorFlow; importing this imports TensorFlow.

`KerasTrainer` is one device's trainer. Trainers of the same model in one process share a `KerasEngine`: one model, one
compiled training loop, however many devices are simulated. `from_module` makes a trainer from a user's module with
`model()` and `data(device)`, see `fedmq.trainers.module`.

What is taken from the user's model
    The compiled optimizer, loss and metrics, and `train_step` and `test_step` where the model's class overrides them.
    Not used: callbacks, class weights (give sample weights), `steps_per_execution` and `jit_compile`.
What is in the vector
    Every floating-point weight. Trainable ones are moved by optimizers; the others, such as batch normalisation's
    moving mean and variance and the weights of frozen layers, travel too, and are averaged as values. float16,
    bfloat16 and float64 weights travel as float32, so the last loses digits (under mixed precision weights are
    float32 anyway). Integer weights and the states of seed generators do not travel, and begin every round as the
    user's code made them.
What begins anew in each round
    Optimizer states (momentum, Adam's moments, the iteration that a learning rate schedule counts) and metrics.
What is the same for the same seed
    Order of the examples, dropout and every other layer that draws from a `keras.random.SeedGenerator`. Numbers that
    user code draws from `tf.random`, or from `keras.random` without a generator, are not under our seed. On a GPU,
    call `tf.config.experimental.enable_op_determinism()` to have the same bytes every time.
"""

from __future__ import annotations

from fedmq.trainers.keras.entry import from_module
from fedmq.trainers.keras.runtime import configure_threads
from fedmq.trainers.keras.trainer import KerasEngine, KerasTrainer

__all__ = ["KerasEngine", "KerasTrainer", "configure_threads", "from_module"]
