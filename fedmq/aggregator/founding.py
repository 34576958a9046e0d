"""What an aggregator is made of beside its links and its disk, and how its codecs are turned from round to round."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from fedmq.aggregator.modelling import Modelling
from fedmq.aggregator.steering import Seen, Steering
from fedmq.codecs.rate import loosest
from fedmq.errors import ConfigError
from fedmq.protocol.coordinator import Coordinator, Terms
from fedmq.store.checkpoint import State, ledger_of
from fedmq.wire.limits import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.messages import Report
    from fedmq.store.checkpoint import CheckpointFolder
    from fedmq.store.modelfile import StoredModel

FACTS_BYTES: Final = 8192
"""Room for an update's facts and its header beside the encoded delta."""


def begin(
    federation: Federation, folder: CheckpointFolder, first: StoredModel, entropy: Callable[[int], bytes]
) -> tuple[State, Modelling]:
    """Go on from the checkpoint in `folder`, in a new epoch, or found the federation there. Raises as `Aggregator`."""
    kept = folder.load()
    if kept is None:
        state, modelling = found(federation, first, entropy, folder=folder.folder)
        folder.save(state, modelling.weights)
        return state, modelling
    state, weights = kept
    if state.layout != first.layout.digest:
        raise ConfigError(
            f"{folder.folder} holds a federation for another model layout: name another folder, or remove it"
        )
    state = replace(state, epoch=state.epoch + 1)
    folder.save(state)
    return state, Modelling(federation, state.run, first.layout, weights, folder=folder.folder)


def found(
    federation: Federation,
    first: StoredModel,
    entropy: Callable[[int], bytes],
    *,
    folder: Path | None = None,
) -> tuple[State, Modelling]:
    """Begin a federation with the `first` model; `entropy` gives the run's name and the cohorts' secret."""
    state = State(run=entropy(8), seed=entropy(16), layout=first.layout.digest, epoch=1)
    return state, Modelling.found(federation, state.run, first.layout, first.vector, folder=folder)


def make_steering(federation: Federation, state: State, modelling: Modelling) -> Steering:
    """Return what turns the codecs; it goes on from the rounds that a checkpoint remembers."""
    encoding, recent = federation.encoding, state.progress.recent
    modelling.codecs.recall({opened.round: opened.codec for opened in recent})
    earlier = (opened.codec for opened in recent if opened.codec)
    steps = (each.codec for each in modelling.weights.frames if not each.step.key)
    steering = Steering(encoding.budget, encoding.up, encoding.down, earlier, steps)
    modelling.downlink.down = steering.down
    return steering


def make_coordinator(
    federation: Federation, state: State, modelling: Modelling, steering: Steering
) -> Coordinator:
    """Return the machine; it goes on from what a checkpoint remembers."""
    terms = Terms(
        run=state.run,
        layout=state.layout,
        seed=state.seed,
        codec=str(steering.up),
        update_bytes=_update_bytes(federation, modelling),
        training=federation.telling,
    )
    progress, ledger = state.progress, ledger_of(state)
    return Coordinator(terms, federation.policy, federation.stop, progress=progress, ledger=ledger)


def _update_bytes(federation: Federation, modelling: Modelling) -> int:
    """Return the most bytes that an update can take: what its codec can give, and room for facts.

    However a budget turns the codec: late updates come in codecs of earlier rounds.
    """
    encoding = federation.encoding
    codec = loosest(encoding.up) if encoding.budget.up else encoding.up
    return codec.most_bytes(modelling.layout.sizes) + FACTS_BYTES


def steer(
    steering: Steering, coordinator: Coordinator, modelling: Modelling, *, present: int, now: float
) -> None:
    """Turn the codecs of what follows by what the round took, where there is a budget to keep to."""
    tally, last = coordinator.ledger.tally, modelling.weights.frames[-1]
    step = 0 if last.step.key else len(last.body)
    seconds = now - coordinator.opened
    steering.seen(Seen(coordinator.progress.round, tally.received, tally.bytes_up, present, seconds, step))
    coordinator.turn(str(steering.up))
    modelling.downlink.down = steering.down


def figured(report: Report, steering: Steering) -> Report:
    """Return the report with the figures on budgets in it, where there are any."""
    ours = steering.figures(report.round)
    if not ours:
        return report
    theirs = dict(islice(report.metrics.items(), METRICS - len(ours)))
    return replace(report, metrics={**theirs, **ours})
