"""Atheris on every decoder; `tests.fuzz.decoders --minutes` runs it, with libFuzzer's options."""

import sys

import atheris

with atheris.instrument_imports(include=["fedmq.codecs"]):
    from tests.fuzz.decoders import chosen, survives


def one(data: bytes) -> None:
    """Decode one input; whatever it raises is a find."""
    if data:
        survives(*chosen(data))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
