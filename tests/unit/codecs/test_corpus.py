"""What the fuzzers kept, once more, and a few mutations of every codec; `make fuzz` runs as many as one likes."""

import numpy as np
import pytest

from fedmq.codecs import Codec
from tests.fuzz import decoders


def test_what_atheris_found_new_paths_with_is_decoded_or_refused() -> None:
    outcomes = [decoders.survives(line, message) for line, message in decoders.kept()]
    assert len(outcomes) > 100


def test_mutated_messages_are_decoded_or_refused_and_both_happen() -> None:
    found = decoders.mutate(10 * len(decoders.ORDER), seed=1)
    assert sum(taken + refused for taken, refused in found.values()) == 10 * len(decoders.ORDER)
    assert sum(refused > 0 for _, refused in found.values()) > 0.8 * len(found)
    assert sum(taken > 0 for taken, _ in found.values()) > 0.8 * len(found)


def test_good_messages_of_every_codec_are_decoded() -> None:
    for line in decoders.ORDER:
        assert all(decoders.survives(line, message) for message in decoders.messages(line))


def test_the_fuzzer_notices_a_decoder_that_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "float16"
    monkeypatch.setattr(Codec, "decode", lambda *_, **__: np.zeros(3, "f4"))
    with pytest.raises(AssertionError, match="float16"):
        decoders.survives(line, b"")
    monkeypatch.setattr(Codec, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decoders.survives(line, b"")
