"""Trainers: an ML framework on one side, flat vectors on the other.

Nothing imports them but by dotted name from configuration, so that a device or an aggregator which does not train
needs no framework. An entry point is a function ``from_module(module, device, options)`` that returns a `Trainer`
for a user's module with `model()` and `data(device)`: see `fedmq.trainers.module`.
"""
