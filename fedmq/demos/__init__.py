"""Worlds that come with fedmq: for each a TOML file and the Python module of its model, as a user would write them."""
