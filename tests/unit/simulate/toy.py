"""A user's module for trials: three classes, a perceptron of 195 numbers, devices with few and with many examples."""

MODULE = """
import numpy as np
from fedmq.trainers.numpy import Mlp

def model():
    return Mlp(20, (8,), classes=3)

def data(device):
    generator = np.random.default_rng(int(device.split("-")[1]))
    def draw(count):
        y = generator.integers(0, 3, count)
        return np.eye(3, 20)[y] + generator.normal(scale=0.5, size=(count, 20)), y
    return draw(int(generator.integers(5, 40))), draw(10)
"""
