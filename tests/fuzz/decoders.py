"""Every decoder against damaged messages: a vector of the model's length, or DecodeError; nothing else, and soon.

    python -m tests.fuzz.decoders --count 1000000     mutate good messages at random, without any tool
    python -m tests.fuzz.decoders --minutes 10        let atheris look for new paths (pip install atheris)

The second keeps what found new paths in `corpus.txt`, one codec's line and one message in a row; the quick tests
replay them (`tests/unit/codecs/test_corpus.py`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.codecs import parse
from fedmq.errors import DecodeError
from tests.unit.codecs.golden import LINES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.codecs import Codec
    from fedmq.vectors import Vector

CORPUS: Final = Path(__file__).with_name("corpus.txt")
SIZES: Final = (30, 0, 1, 40, 8, 20)
"""An empty block, a block of one, and a kernel before its bias."""

SEED: Final = 9
ORDER: Final = tuple(sorted(set(LINES)))

LONGEST: Final = 2048
"""Bytes that atheris makes at most; longer ones are refused unread, as the longest codec here takes 800."""

PATIENCE: Final = 1.0
"""Seconds for one message."""


@cache
def codec_of(line: str) -> Codec:
    """Return the codec that a row of the corpus names."""
    return parse(line)


def survives(line: str, message: bytes) -> bool:
    """Tell whether `message` decodes; fails for any answer but a good vector or DecodeError."""
    codec, began = codec_of(line), time.process_time()
    try:
        decoded = codec.decode(message, SIZES, seed=SEED)
    except DecodeError:
        return False
    finally:
        assert time.process_time() - began < PATIENCE, f"{line}: {message.hex()} takes too long"
    assert decoded.shape == (sum(SIZES),), f"{line}: {message.hex()}"
    assert decoded.dtype == np.float32
    assert codec.exact or np.isfinite(decoded).all(), f"{line}: {message.hex()}"
    return True


def vectors() -> Iterator[Vector]:
    """Yield vectors like trained deltas: full, with many zeros, with few large numbers, and nothing but zeros."""
    chance = np.random.default_rng(1)
    for share, degrees in ((1.0, 3.0), (0.3, 2.0), (0.1, 1.0), (0.0, 1.0)):
        numbers = chance.standard_t(degrees, sum(SIZES)) * (chance.random(sum(SIZES)) < share)
        yield (numbers * 1e-3).astype(np.float32)


def messages(line: str) -> list[bytes]:
    """Return good messages of one codec."""
    return [codec_of(line).encode(vector, SIZES, seed=SEED) for vector in vectors()]


def mutated(message: bytes, random: Random) -> bytes:
    """Return `message` with some bytes replaced or bits flipped, and often a piece cut out, doubled or moved."""
    damaged = bytearray(message or b"\0")
    for _ in range(random.choice((0, 1, 1, 2, 3, 8))):
        place = random.randrange(len(damaged))
        damaged[place] = random.choice(
            (damaged[place] ^ 1 << random.randrange(8), random.randrange(256), 0, 255)
        )
    if random.random() < 0.3:
        start, stop = sorted(random.choices(range(len(damaged) + 1), k=2))
        piece = damaged[start:stop]
        del damaged[start:stop]
        place = random.randrange(len(damaged) + 1)
        damaged[place:place] = piece * random.randrange(3)
    return bytes(damaged)


def mutate(count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Decode `count` mutated messages over all codecs by turns; return how many each took and refused."""
    random, good = Random(seed), {line: messages(line) for line in ORDER}
    found = dict.fromkeys(ORDER, (0, 0))
    for turn in range(count):
        line = ORDER[turn % len(ORDER)]
        taken, refused = found[line]
        survived = survives(line, mutated(random.choice(good[line]), random))
        found[line] = (taken + survived, refused + (not survived))
    return found


def kept() -> list[tuple[str, bytes]]:
    """Return the corpus."""
    rows = (row.split("\t") for row in CORPUS.read_text().splitlines())
    return [(line, bytes.fromhex(message)) for line, message in rows]


def explore(minutes: int) -> None:
    """Run atheris on the corpus and good messages; add what reaches new paths to the corpus, and what fails."""
    good = {named(line, message) for line in ORDER for message in messages(line)}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs")
        inputs.mkdir()
        for data in good | {named(line, message) for line, message in kept() if line in ORDER}:
            (inputs / sha256(data).hexdigest()).write_bytes(data)
        options = [f"-max_len={LONGEST}", f"-artifact_prefix={folder}/", f"-max_total_time={60 * minutes}"]
        done = subprocess.run([sys.executable, "-m", "tests.fuzz.engine", *options, str(inputs)], check=False)
        files = [*inputs.iterdir(), *Path(folder).glob("crash-*")]
        found = {file.read_bytes() for file in files} - good - {b""}
    rows = sorted({f"{line}\t{message.hex()}\n" for line, message in map(chosen, found)})
    CORPUS.write_text("".join(rows))
    sys.exit(done.returncode)


def named(line: str, message: bytes) -> bytes:
    """Return a message as atheris has it: the first byte chooses the codec."""
    return bytes([ORDER.index(line)]) + message


def chosen(data: bytes) -> tuple[str, bytes]:
    """Return the codec that the first byte chooses, and the message."""
    return ORDER[data[0] % len(ORDER)], data[1:]


def main() -> None:
    """Mutate or explore, and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="how many messages to mutate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=int, default=0, help="run atheris for so long instead")
    given = parser.parse_args()
    if given.minutes:
        explore(given.minutes)
    else:
        began = time.process_time()
        found = mutate(given.count, given.seed)
        for line, (taken, refused) in found.items():
            sys.stdout.write(f"{line:60} {taken:8} decoded {refused:8} refused\n")
        spent = time.process_time() - began
        sys.stdout.write(f"{given.count} messages over {len(ORDER)} codecs in {spent:.0f} s of CPU\n")


if __name__ == "__main__":
    main()
