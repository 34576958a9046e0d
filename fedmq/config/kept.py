"""What kept updates say of their federation: enough to decode them and to do again what its rule did with them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Algorithm, Plain
from fedmq.config.structure import structure
from fedmq.config.tables import tables
from fedmq.rules import AnyRule


@dataclass(frozen=True, slots=True)
class KeptSettings:
    """The part of a federation that the aggregator's arithmetic depends on."""

    name: str
    rule: AnyRule
    encoding: Encoding
    algorithm: Algorithm = field(default_factory=Plain)

    @property
    def federation(self) -> Federation:
        """A federation of just that."""
        return Federation(self.name, self.rule, encoding=self.encoding, algorithm=self.algorithm)


def written(federation: Federation) -> str:
    """Return the federation as JSON, for `Archive`."""
    kept = KeptSettings(federation.name, federation.rule, federation.encoding, federation.algorithm)
    return json.dumps(tables(kept))


def read(text: str) -> Federation:
    """Return what `written` was given, without its policy. Raises ConfigError."""
    return structure(json.loads(text), KeptSettings, source="kept updates").federation
