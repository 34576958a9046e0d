"""Conformance suites, simulators and stand-ins: for fedmq's own tests and for those of other implementations."""
