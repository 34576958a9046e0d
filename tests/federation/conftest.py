"""What all federations of the tests have in common."""

from __future__ import annotations

import pytest

from fedmq.protocol import coordinator


@pytest.fixture(autouse=True)
def _short_census(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an aggregator that starts again wait less for its fleet: here all devices answer within milliseconds."""
    monkeypatch.setattr(coordinator, "CENSUS_S", 1.0)
