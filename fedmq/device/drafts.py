"""Updates that are trained but not encoded yet: those of several devices are encoded together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeVar

from fedmq.errors import FedmqError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fedmq.codecs import Codec
    from fedmq.device.interface import Trained
    from fedmq.device.outbox import Stored
    from fedmq.device.residual import Whole
    from fedmq.device.training import Begun, Training
    from fedmq.vectors import Vector

Before = TypeVar("Before")
Given = TypeVar("Given")
Done = TypeVar("Done")

_AT_ONCE: Final = 1 << 20
"""Numbers, of all updates that are encoded together: what that saves is each call's cost, which large models hide."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What a training gave, and how it is to be sent.

    `sent` is the vector to encode, by `codec` under `seed` with blocks of `sizes`; `update` is the update's name.
    `whole` is what error feedback has to know of it, None without.
    """

    begun: Begun
    trained: Trained
    update: bytes
    codec: Codec
    sizes: tuple[int, ...]
    seed: int
    sent: Vector
    whole: Whole | None


def finish_all(
    answers: Sequence[tuple[Training, Begun, Trained | FedmqError]],
) -> list[Stored | FedmqError]:
    """Do as `Training.finish` for each; return what it gives or raises, or the error that is there already."""
    outcomes: list[Stored | FedmqError] = []
    size = max((begun.model.size for _, begun, _ in answers), default=0)
    count = max(1, _AT_ONCE // max(1, size))
    for start in range(0, len(answers), count):
        some = answers[start : start + count]
        drafts = [_tried(training.draft, begun, trained) for training, begun, trained in some]
        codes = _encoded([draft for draft in drafts if isinstance(draft, Draft)])
        for (training, _, _), draft in zip(some, drafts, strict=True):
            sealed = _tried(training.seal, draft, next(codes)) if isinstance(draft, Draft) else draft
            outcomes.append(sealed)
    return outcomes


def _tried(
    work: Callable[[Before, Given], Done], before: Before, given: Given | FedmqError
) -> Done | FedmqError:
    """Return ``work(before, given)``, or the error that `given` is or that comes of it."""
    if isinstance(given, FedmqError):
        return given
    try:
        return work(before, given)
    except FedmqError as error:
        return error


def _encoded(drafts: Sequence[Draft]) -> Iterator[bytes | FedmqError]:
    """Yield each as bytes, or why it cannot be: one that cannot costs the others time, and nothing else."""
    for (codec, sizes), group in groupby(drafts, lambda draft: (draft.codec, draft.sizes)):
        alike = list(group)
        try:
            yield from codec.encode_all(
                [draft.sent for draft in alike], sizes, [draft.seed for draft in alike]
            )
        except FedmqError as error:
            if len(alike) == 1:
                yield error
            else:
                for draft in alike:
                    yield from _encoded([draft])
