"""Messages to bytes and back, topics, chunks: the specification's half that MQTT sees."""
