"""MQTT links: one `Transport` interface, an in-process broker, and aiomqtt for real ones."""
