"""Where a run's kept updates are, and who can judge the models that are made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.config import structure
from fedmq.errors import ConfigError, StoreError
from fedmq.simulate.settings import SimulationSettings
from fedmq.store.archive import UPDATES, read_archive
from fedmq.store.files import disk

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.store.archive import Recording


@dataclass(frozen=True)
class Record:
    """A run that kept its updates; `settings` are a simulation's, None for a service: that has no data to judge by."""

    path: Path
    recording: Recording
    settings: SimulationSettings | None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.settings.name if self.settings else self.path.resolve().name


def open_record(path: Path) -> Record:
    """Open a simulation's run folder, an aggregator's folder, or the archive in it.

    Raises ConfigError where `path` is none of these, StoreError where nothing was kept or the archive is damaged.
    """
    if not path.is_dir():
        raise ConfigError(f"{path} is no folder: name a run folder or an aggregator's folder")
    places = (path / "aggregator" / UPDATES, path / UPDATES, path)
    recording = read_archive(next((place for place in places if (place / "start").is_dir()), places[1]))
    if not recording.rounds:
        raise StoreError(f"{recording.folder} holds no round yet: wait until one has moved the model")
    return Record(path, recording, _settings(path))


def _settings(path: Path) -> SimulationSettings | None:
    """Return what the simulation was told, as the run folder has it."""
    file = path / "settings.json"
    if not (path / "rounds.jsonl").exists() or not file.exists():
        return None
    with disk("read", file):
        text = file.read_text(encoding="utf-8")
    try:
        return structure(json.loads(text), SimulationSettings, source=str(file))
    except ValueError as error:
        raise ConfigError(f"{file} is not valid JSON: {error}") from None
