"""The other side of `tests.chaos.bad_updates`: Flower's FedAvg, given the same bad updates among ten good ones.

Run by path, with a Python that has ``flwr``; it must not need fedmq. The last line is JSON: name of the update, and
what became of the model that ten good clients had made. Clients send whole models there, not deltas: the bad one's is
what fedmq's bad device would have made of it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 21
REFUSED = "refused, model unchanged"

MODEL = np.ones(SIZE, np.float32)
GOOD = MODEL + 2


def spoilt(value: float) -> NDArray[np.float32]:
    """Return a good model with one number replaced."""
    model = GOOD.copy()
    model[3] = value
    return model


CASES: dict[str, tuple[Any, int]] = {
    "NaN": (spoilt(np.nan), 10),
    "infinity": (spoilt(np.inf), 10),
    "minus infinity": (spoilt(-np.inf), 10),
    "all NaN": (GOOD * np.float32(np.nan), 10),
    "1e30": (spoilt(1e30), 10),
    "float32's largest": (np.full(SIZE, np.finfo(np.float32).max), 10),
    "no examples": (GOOD + 1, 0),
    "negative examples": (GOOD + 1, -5),
    "1e12 examples": (GOOD + 1, 10**12),
    "one number too few": (GOOD[1:], 10),
    "one number too many": (np.append(GOOD, np.float32(1)), 10),
    "a shape that broadcasts": (GOOD[:1] + 1, 10),
    "float64": (GOOD.astype(np.float64) + 1, 10),
    "float16": (GOOD.astype(np.float16) + np.float16(1), 10),
    "empty": (GOOD[:0], 10),
    "an update of the last round": (MODEL, 10),
    "nothing": (b"", 10),
    "text": (b"hello", 10),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", 10),
}
"""What the bad client sends, an array or bytes in the place of one, and how many examples it claims."""


def outcome(sent: Any, examples: int) -> str:  # noqa: ANN401 - Flower's own, not installed here
    """Return what FedAvg makes of ten good clients and this one."""
    from flwr.common import (  # type: ignore[import-not-found]
        Code,
        FitRes,
        Parameters,
        Status,
        ndarrays_to_parameters,
        parameters_to_ndarrays,
    )
    from flwr.server.strategy import FedAvg  # type: ignore[import-not-found]

    def result(what: Any, count: int) -> Any:  # noqa: ANN401
        parameters = (
            Parameters([what], "numpy.ndarray") if isinstance(what, bytes) else ndarrays_to_parameters([what])
        )
        return None, FitRes(Status(Code.OK, ""), parameters, count, {})

    def mean(results: list[Any]) -> Any:  # noqa: ANN401
        parameters, _ = FedAvg().aggregate_fit(1, results, [])
        return parameters_to_ndarrays(parameters)[0]

    good = [result(GOOD, 10) for _ in range(10)]
    honest = mean(good)
    try:
        made = mean([*good, result(sent, examples)])
    except Exception as error:  # noqa: BLE001 - whatever it is, the round has no model
        return f"the round fails: {type(error).__name__}"
    return described(honest, made)


def described(honest: NDArray[np.float32], made: NDArray[np.float32]) -> str:
    """Return in words what has become of the model."""
    if made.shape != honest.shape:
        return f"model of shape {made.shape}"
    wild = int((~np.isfinite(made)).sum())
    if wild:
        return f"{wild} of {made.size} numbers not finite"
    off = float(np.abs(made - honest).max())
    if not off:
        return REFUSED if made.dtype == honest.dtype else f"model of {made.dtype}"
    return f"taken, model off by {off:.2g}"


def main() -> None:
    """Try every case."""
    with np.errstate(all="ignore"):
        found = {name: outcome(*case) for name, case in CASES.items()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
