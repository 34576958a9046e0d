"""Many devices' trainings as one computation: Keras' stateless functions, mapped over a first dimension of devices.

What differs between Keras' backends (slopes of a loss, mapping over devices, compiling) is a `Calculus`; the rest is
written once, in Keras' own operations.
"""
