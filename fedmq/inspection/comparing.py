"""Codecs side by side on one update: what it takes, what is lost of it, and for how long one waits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.aggregator.encodings import ENCODINGS
from fedmq.codecs import PRESETS, Codec, parse
from fedmq.errors import FedmqError
from fedmq.protocol.quantities import spell_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fedmq.inspection.captured import Captured
    from fedmq.vectors import Vector

TOGETHER: Final = 20
"""How many updates the second error is of: as many devices with this one's update, each with a seed of its own."""
TRIES: Final = 3
"""Times that encoding and decoding are measured; the fastest counts."""
WHOLE_BYTES: Final = 4
"""What a number takes as float32."""


@dataclass(frozen=True, slots=True)
class Row:
    """One codec on the update.

    `ratio` is float32's bytes over its own. `error` is the L2 distance of what is decoded, over the update's length;
    `error_together` that of the mean of `TOGETHER` such messages. Seconds are of this machine. `refused` says why it
    cannot encode this update at all; the figures are 0 then.
    """

    name: str
    codec: str
    bias: str
    rules: str
    nbytes: int = 0
    ratio: float = 0.0
    error: float = 0.0
    error_together: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    refused: str = ""


def named_codecs(lines: Sequence[str] = ()) -> dict[str, Codec]:
    """Return the codecs to compare by what to call them: all presets, and `lines`. Raises ConfigError."""
    found = {name: parse(line) for name, line in PRESETS.items()}
    found |= {name: encoding.up for name, encoding in ENCODINGS.items() if encoding.up not in found.values()}
    found |= {str(codec): codec for codec in map(parse, lines) if codec not in found.values()}
    return found


def compare(update: Captured, codecs: dict[str, Codec]) -> Iterator[Row]:
    """Yield a row for each codec, as it is measured."""
    for name, codec in codecs.items():
        known = Row(name, str(codec), bias(codec), rules(codec))
        try:
            yield _measured(known, codec, update)
        except FedmqError as error:
            yield Row(known.name, known.codec, known.bias, known.rules, refused=str(error))


def bias(codec: Codec) -> str:
    """Return what becomes of a codec's error in means over devices and rounds."""
    if codec.exact:
        return "no error"
    if codec.unbiased:
        return "unbiased"
    return "biased" if codec.feedback is None else "made good"


_RULES: Final = (
    "rules: `averages` are those that never look at single updates, `most` are those and nearly all robust ones; "
    "`fedmq rules NAME` says what a part needs."
)


def rules(codec: Codec) -> str:
    """Return which rules may use it."""
    return {"moderate": "most", "large": "averages"}.get(codec.per_update_error, "all")


def _measured(known: Row, codec: Codec, update: Captured) -> Row:
    vector, sizes = update.vector, update.sizes
    encode_s, data = _timed(lambda: codec.encode(vector, sizes, seed=0))
    decode_s, decoded = _timed(lambda: codec.decode(data, sizes, seed=0))
    return Row(
        known.name,
        known.codec,
        known.bias,
        known.rules,
        len(data),
        WHOLE_BYTES * vector.size / max(1, len(data)),
        _distance(decoded, vector),
        _distance(_mean(codec, update, decoded), vector),
        encode_s,
        decode_s,
    )


def _mean(codec: Codec, update: Captured, first: Vector) -> Vector:
    """Return the mean of what is decoded of several messages of one update, `first` being one of them."""
    if not codec.unbiased or codec.exact:
        return first
    total = first.astype(np.float64)
    for seed in range(1, TOGETHER):
        data = codec.encode(update.vector, update.sizes, seed=seed)
        total += codec.decode(data, update.sizes, seed=seed)
    return (total / TOGETHER).astype(np.float32)


def _distance(decoded: Vector, vector: Vector) -> float:
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return float(np.linalg.norm(decoded.astype(np.float64) - vector)) / length if length else 0.0


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the least processor time of a few tries, and the result."""
    times, result = [], None
    for _ in range(TRIES):
        begun = time.process_time()
        result = work()
        times.append(time.process_time() - begun)
    return min(times), result


# --- in words ---------------------------------------------------------------------------------------------------------


def introduction(update: Captured) -> list[str]:
    """Return what is compared on, and a sentence where it has lost something already."""
    whole = WHOLE_BYTES * update.vector.size
    lines = [f"{update.what}: {update.vector.size:,} numbers, {spell_bytes(whole)} as float32"]
    if update.codec:
        lines.append(
            f"It came as `{update.codec}`, so what that lost is not in it: errors below are of what is left, and bytes "
            'may be too few. For a fair comparison capture one with up = "exact".'
        )
    return lines


def table(rows: Sequence[Row]) -> list[str]:
    """Return the comparison as lines of columns."""
    wide = max(len(row.name) for row in rows)
    heading = (
        f"{'':<{wide}}  {'bytes':>8}  {'ratio':>8}  {'error':>7}  {f'of {TOGETHER}':>7}  {'encode':>8}  {'decode':>8}  "
        f"{'bias':<9}  rules"
    )
    return [heading, *(_line(row, wide) for row in rows), "", *notes()]


def _line(row: Row, wide: int) -> str:
    if row.refused:
        return f"{row.name:<{wide}}  {row.refused}"
    return (
        f"{row.name:<{wide}}  {spell_bytes(row.nbytes):>8}  {_ratio(row.ratio):>8}  {row.error:>7.1%}  "
        f"{row.error_together:>7.1%}  {1000 * row.encode_s:>5.1f} ms  {1000 * row.decode_s:>5.1f} ms  "
        f"{row.bias:<9}  {row.rules}"
    )


def _ratio(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= WHOLE_BYTES**2 else f"{ratio:.1f}"


def notes() -> list[str]:
    """Return what the columns mean."""
    first = f"the mean of {TOGETHER} messages"
    return [
        f"error: how far the decoded update lies from this one, of its length; of {TOGETHER}: the same of {first}.",
        _RULES,
    ]


def as_data(update: Captured, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the comparison as plain data, for ``--json``."""
    return {
        "update": update.what,
        "numbers": update.vector.size,
        "came_as": update.codec or None,
        "codecs": [{name: getattr(row, name) for name in row.__slots__} for row in rows],
    }
