"""Reducers that withstand devices which lie: each needs every update of the round, and keeps them in a file."""
