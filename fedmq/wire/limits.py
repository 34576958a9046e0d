"""Limits of protocol version 1: what no valid message exceeds, whatever a peer says.

Each stands with the reason for its size. The specification prints this table.
"""

from typing import Final

PACKET_BYTES: Final = 2_000_000
"""Largest PUBLISH a fedmq peer sends: mosquitto 2.1's default limit. A broker may ask for less in its CONNACK."""
LEAST_PACKET_BYTES: Final = 4_096
"""Smallest packet limit fedmq works with: a task with a dozen settings fits into one packet."""
CHUNK_BYTES: Final = 262_144
"""Default size of a chunk: large enough that headers vanish, small enough to be sent again on a bad link."""
CHUNKS: Final = 65_535
"""Most chunks of one body."""
SPANS: Final = 128
"""Most numbers in a receipt that say which chunks are missing, two a gap: so it fits into the smallest packet."""
QUESTIONS: Final = 65_535
"""Highest number of a question: few enough bytes, and enough that an answer to an old one is known for that."""
BODY_BYTES: Final = 2**31 - 1
"""Longest body (an update, a frame of a model): 2 GiB less one byte, so that signed 32-bit readers can count it."""
VARIABLES: Final = 10_000
"""Most variables in a layout; the largest networks in use have a few thousand."""
PARAMETERS: Final = 2**29
"""Longest vector: 2 GiB of float32."""
FRAMES: Final = 256
"""Most deltas that stand."""
BLOCKS: Final = 2**25
"""Longest frame, in blocks of 64 bytes: as many as the longest body fills."""
DIGEST: Final = 8
"""Bytes of a digest of a frame or a model: they tell accidents, of which one in 2^64 goes unseen, not forgers."""
SECTIONS: Final = 8
"""Most sections in an update."""
NAME: Final = 64
"""Longest name of a federation, device, section, metric or setting, in bytes of UTF-8."""
METRICS: Final = 32
"""Most metrics in an update or a report."""
SETTINGS: Final = 32
"""Most training settings in a task."""
SETTING: Final = 200
"""Longest text as the value of a setting, in bytes of UTF-8."""
SENTENCE: Final = 300
"""Longest text for people, in bytes of UTF-8."""
SPELLING: Final = 200
"""Longest spelling of a codec, in bytes of UTF-8."""
CODECS: Final = 32
"""Most codecs in a birth certificate."""
NUMBER: Final = 2**48
"""Highest number of a round, version, session or epoch: exact in any language's float, 15 digits in a topic."""
COUNT: Final = 2**40
"""Most examples, steps or devices: a trillion of each is beyond any of them."""
SUM: Final = 2**53
"""Largest sum of counts: the last integer that a float of 64 bits holds exactly."""
ROUND_SECONDS: Final = 10.0 * 365 * 86_400
"""Longest round: ten years, in seconds."""
