"""Federated learning for fleets of IoT devices, over MQTT."""

__version__ = "0.1.0"
