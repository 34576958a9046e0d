"""A reader of protocol version 1 that was written from docs/explanation/protocol.md and knows nothing of fedmq.

It takes heads, fields, types and limits from the page's own tables, and the rules from its text: so what a programmer
needs who has the page and no code, stands on the page.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs/explanation/protocol.md"
Rows = list[list[str]]


class RefusedError(Exception):
    """The bytes are no valid message."""


@dataclass
class Page:
    """What the page's tables say."""

    heads: dict[str, bytes]
    most: dict[str, float]
    fields: dict[str, list[tuple[str, str]]]


def read_page() -> Page:
    text = PAGE.read_text(encoding="utf-8")
    heads, most, fields = {}, {}, {}
    for row in rows_after(text, "| type | message | head | most bytes |"):
        name = row[1].strip("`")
        heads[name], most[name] = bytes.fromhex(row[2].strip("`")), number(row[3])
    for title in re.finditer(r"^####? (\w+)(?: \(\d+\))?\n\n", text, re.MULTILINE):
        rows = rows_after(text[title.end() :], "| place | field | type and limits | meaning |", within=400)
        if rows:
            fields[title[1]] = [(row[1].strip("`"), row[2]) for row in rows]
    return Page(heads, most, fields)


def rows_after(text: str, header: str, within: int = 10**9) -> Rows:
    start = text.find(header)
    if not 0 <= start < within:
        return []
    lines = text[start:].split("\n")[2:]
    table = lines[: next(at for at, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def number(words: str) -> float:
    """Read a limit: 300, -2^53, 2^31 - 1."""
    found = re.fullmatch(r"(-?)2\^(\d+)( - 1)?", words)
    if found is None:
        return float(words) if "." in words else int(words)
    sign, power, less = -1 if found[1] else 1, int(found[2]), 1 if found[3] else 0
    return sign * (1 << power) - less


class Reader:
    """Reads messages by the page."""

    def __init__(self) -> None:
        self.page = read_page()

    def message(self, kind: str, data: bytes) -> dict[str, Any]:
        head = self.page.heads[kind]
        if not data.startswith(head) or len(data) > self.page.most[kind]:
            raise RefusedError("head or length")
        try:
            found, at = self.fields(kind, data, len(head))
        except (IndexError, struct.error):
            raise RefusedError("ends early") from None
        if at != len(data):
            raise RefusedError("bytes left over")
        return found

    def fields(self, kind: str, data: bytes, at: int) -> tuple[dict[str, Any], int]:
        found = {}
        for name, words in self.page.fields[kind]:
            found[name], at = self.value(words, data, at)
        if not agrees(kind, found):
            raise RefusedError(f"{kind} contradicts itself")
        return found, at

    def value(self, words: str, data: bytes, at: int) -> tuple[Any, int]:
        """Read one value of the type that `words` of the page describe."""
        if found := re.fullmatch(r"array of (\d+): `(\w+)`", words):
            count, at = token("array", data, at)
            want(count == int(found[1]))
            return self.fields(found[2], data, at)
        if found := re.fullmatch(r"array of (\d+) to (\d+): (.*)", words):
            return self.array(int(found[1]), int(found[2]), found[3], data, at)
        if found := re.fullmatch(r"map of at most (\d+): (.*?) → (.*)", words):
            return self.map(int(found[1]), found[2], found[3], data, at)
        if words.startswith("bool or "):
            return self.setting(words.split(" or "), data, at)
        return scalar(words, data, at)

    def array(self, least: int, most: int, entry: str, data: bytes, at: int) -> tuple[list[Any], int]:
        count, at = token("array", data, at)
        want(least <= count <= most)
        entries = []
        for _ in range(count):
            value, at = self.struct(entry, data, at) if entry.startswith("`") else self.value(entry, data, at)
            entries.append(value)
        return entries, at

    def struct(self, entry: str, data: bytes, at: int) -> tuple[dict[str, Any], int]:
        kind = entry.strip("`")
        count, at = token("array", data, at)
        want(count == len(self.page.fields[kind]))
        return self.fields(kind, data, at)

    def map(self, most: int, key: str, entry: str, data: bytes, at: int) -> tuple[dict[str, Any], int]:
        count, at = token("map", data, at)
        want(count <= most)
        entries: dict[str, Any] = {}
        for _ in range(count):
            name, at = self.name(key, data, at)
            want(name not in entries)
            entries[name], at = self.value(entry, data, at)
        return entries, at

    def name(self, words: str, data: bytes, at: int) -> tuple[Any, int]:
        """Read a name: text, or the number of one that the page lists."""
        text, _, numbered = words.partition("; or int: ")
        if not numbered or lead(data[at])[0] != "int":
            return scalar(text, data, at)
        number, at = token("int", data, at)
        known = dict(entry.split() for entry in numbered.split(", "))
        want(str(number) in known)
        return known[str(number)], at

    def setting(self, choices: list[str], data: bytes, at: int) -> tuple[Any, int]:
        """Read whichever of the types stands there; an integer is one of those, and not a float."""
        kind = lead(data[at])[0]
        fitting = [words for words in choices if words.split(",")[0] == kind]
        want(bool(fitting))
        return scalar(fitting[0], data, at)


def scalar(words: str, data: bytes, at: int) -> tuple[Any, int]:
    kind, _, limit = words.replace(":", ",", 1).partition(",")
    value, at = token("int" if kind == "float" and lead(data[at])[0] == "int" else kind, data, at)
    match kind:
        case "int" if words.startswith("int:"):
            want(value in [int(choice.split()[0]) for choice in limit.split(",")])
        case "int" | "float" if not limit.strip().startswith("finite"):
            low, high = (number(words) for words in limit.strip().split(" to "))
            want(low <= value <= high)
        case "float":
            want(math.isfinite(value))
            want(abs(value) < 2.0**128 or "32 bits" not in limit)
        case "str":
            want(len(value.encode()) <= int(limit.removeprefix(" at most ")))
            want(not re.search(r"[\x00-\x1f\x7f-\x9f]", value))
        case "bin":
            want(fits(len(value), limit.strip()))
            value = value.hex()
    return (float(value) if kind == "float" else value), at


def fits(size: int, limit: str) -> bool:
    """Say whether a length is within "8", "0 or 8" or "1 to 2000000"."""
    if " to " in limit:
        low, high = (number(words) for words in limit.split(" to "))
        return low <= size <= high
    return size in [number(words) for words in limit.split(" or ")]


def agrees(kind: str, found: dict[str, Any]) -> bool:
    """Hold the fields against each other, as the column *meaning* says."""
    match kind:
        case "Task":
            return bool(found["oldest"] <= found["round"])
        case "Manifest":
            version, deltas = found["version"], len(found["deltas"])
            joined = deltas < version and version - deltas <= found["key"] <= version
            return bool(joined and sum(found["behind"]) <= 2**29)
        case "Chunk":
            room = found["total"] - (found["count"] - 1)
            return bool(found["index"] < found["count"] and len(found["data"]) // 2 <= room)
        case "Receipt":
            return len(found["missing"]) % 2 == 0 and sum(found["missing"]) <= 65535
        case _:
            return True


# --- msgpack, from its specification ----------------------------------------------------------------------------------

FIXED = {0xC2: ("bool", False), 0xC3: ("bool", True)}
SIZED = {
    0xC4: ("bin", "B"), 0xC5: ("bin", "H"), 0xC6: ("bin", "I"),
    0xCA: ("float", "f"), 0xCB: ("float", "d"),
    0xCC: ("int", "B"), 0xCD: ("int", "H"), 0xCE: ("int", "I"), 0xCF: ("int", "Q"),
    0xD0: ("int", "b"), 0xD1: ("int", "h"), 0xD2: ("int", "i"), 0xD3: ("int", "q"),
    0xD9: ("str", "B"), 0xDA: ("str", "H"), 0xDB: ("str", "I"),
    0xDC: ("array", "H"), 0xDD: ("array", "I"), 0xDE: ("map", "H"), 0xDF: ("map", "I"),
}  # fmt: skip


def lead(byte: int) -> tuple[str, Any]:
    """Say what a leading byte leads, and its value or length if that is in the byte itself."""
    if byte < 0x80 or byte >= 0xE0:
        return "int", byte if byte < 0x80 else byte - 256
    if byte < 0xC0:
        kind = "map" if byte < 0x90 else "array" if byte < 0xA0 else "str"
        return kind, byte & (0x1F if kind == "str" else 0x0F)
    if byte in SIZED:
        return SIZED[byte][0], None
    return FIXED.get(byte, ("none of the protocol's", None))


def token(wanted: str, data: bytes, at: int) -> tuple[Any, int]:
    """Read one token: a number, a truth value, text, bytes, or how many entries follow."""
    kind, value = lead(data[at])
    want(kind == wanted)
    if value is None:
        form = ">" + SIZED[data[at]][1]
        (value,) = struct.unpack_from(form, data, at + 1)
        at += struct.calcsize(form)
    at += 1
    if kind not in {"bin", "str"}:
        return value, at
    want(at + value <= len(data))
    body = data[at : at + value]
    try:
        return (body if kind == "bin" else body.decode("utf-8")), at + value
    except UnicodeDecodeError:
        raise RefusedError("not UTF-8") from None


def want(holds: bool) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise RefusedError


# --- the rest of the page ---------------------------------------------------------------------------------------------


def in_cohort(salt: bytes, fraction: float, device: str) -> bool:
    word = hmac.new(salt, device.encode("ascii"), hashlib.sha256).digest()[:8]
    return int.from_bytes(word, "big") < math.floor(fraction * 2**64)


def layout(variables: list[dict[str, Any]]) -> tuple[list[int], str]:
    shared = [variable for variable in variables if variable["scope"] == "shared"]
    lines = "".join(f"{v['kind']} {v['name']} {','.join(str(size) for size in v['shape'])}\n" for v in shared)
    return [math.prod(v["shape"]) for v in shared], hashlib.sha256(lines.encode()).hexdigest()[:16]


def update_seed(run: str, round_: int, update: str) -> str:
    return hashlib.sha256(bytes.fromhex(run) + round_.to_bytes(8, "big") + bytes.fromhex(update)).hexdigest()[
        :16
    ]


def frame_seed(run: str, version: int) -> str:
    return hashlib.sha256(bytes.fromhex(run) + b"frame" + version.to_bytes(8, "big")).hexdigest()[:16]


def assemble(chunks: list[dict[str, Any]]) -> bytes:
    """Put a body together from chunks in any order; the first fixes which body it is."""
    names = ("run", "stem", "count", "total", "digest")
    mine = {chunk["index"]: chunk["data"] for chunk in chunks if all(chunk[n] == chunks[0][n] for n in names)}
    body = bytes.fromhex("".join(mine[index] for index in range(chunks[0]["count"])))
    want(len(body) == chunks[0]["total"] and hashlib.sha256(body).hexdigest()[:16] == chunks[0]["digest"])
    return body
