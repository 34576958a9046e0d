"""Rotations, samples and their scales as the reference page has them, in plain Python: for the second decoder."""

from __future__ import annotations

import math
import struct

MASK = (1 << 64) - 1
CENTROIDS = {1: [1], 2: [14, 48], 3: [8, 24, 43, 69], 4: [4, 12, 21, 30, 40, 52, 66, 87]}


def fl(number: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded


def words(seed: int, stream: int, count: int) -> list[int]:
    found: list[int] = []
    for counter in range(1, -(-count // 8) + 1):
        a, b, c, d, k, m = counter, 0, 0, 0, seed, stream
        for _ in range(10):
            left, right = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
            a, b, c, d = (right >> 64) ^ b ^ k, right & MASK, (left >> 64) ^ d ^ m, left & MASK
            k, m = (k + 0x9E3779B97F4A7C15) & MASK, (m + 0xBB67AE8584CAA73B) & MASK
        found += [half for out in (a, b, c, d) for half in (out & 0xFFFFFFFF, out >> 32)]
    return found[:count]


def rotated(n: int, length: int) -> list[int]:
    """The blocks that `rotate` makes of n numbers."""
    r = n % length
    g = 2 ** max(math.ceil(math.log2(r)) - 3, 0) if r else 1
    r = -(-r // g) * g
    return [length] * (n // length) + [2**k for k in range(20, -1, -1) if r >> k & 1]


def turned_back(numbers: list[float], n: int, length: int, seed: int) -> list[float]:
    found: list[float] = []
    bits = words(seed, 2, -(-n // 32))
    for size in rotated(n, length):
        start = len(found)
        block = numbers[start : start + size]
        norm = fl(2 ** (-(size.bit_length() - 1) / 2))
        for i in range(size):
            total = math.fsum(y * (-1) ** (i & j).bit_count() for j, y in enumerate(block))
            minus = start + i < n and bits[(start + i) // 32] >> (start + i) % 32 & 1
            found.append(fl(total * norm) * (-1 if minus else 1) + 0.0)
    return found[:n]


def sampled(sizes: list[int], p: float) -> list[int]:
    return [min(s, max(1, math.floor(p * s + 0.5))) for s in sizes]


def scattered(numbers: list[float], sizes: list[int], p: float, seed: int) -> list[float]:
    found: list[float] = []
    draws = words(seed, 3, len(numbers))
    taken = 0
    for s, m in zip(sizes, sampled(sizes, p), strict=True):
        block = [0.0] * s
        for i in range(m):
            start = i * s // m
            length = (i + 1) * s // m - start
            block[start + (draws[taken] * length >> 32)] = fl(numbers[taken] * length)
            taken += 1
        found += block
    return found


def unfolded(numbers: list[float], count: int, seed: int) -> list[float]:
    bits = words(seed, 5, -(-count // 32))
    return [numbers[i % len(numbers)] * (-1 if bits[i // 32] >> i % 32 & 1 else 1) for i in range(count)]


def octets(data: bytes) -> list[float]:
    scales = []
    for c in data[1:]:
        t = max(c // 16 - 1, 0)
        scales.append(math.ldexp(c - 16 * t, t + data[0] - 149))
    return scales


def eden(symbols: list[int], scales: list[float], sizes: list[int], bits: int) -> list[float]:
    table = [-c for c in reversed(CENTROIDS[bits])] + CENTROIDS[bits]
    blocks = [scale for scale, size in zip(scales, sizes, strict=True) for _ in range(size)]
    return [fl(table[q] * scale) for q, scale in zip(symbols, blocks, strict=True)]


def decode(stages: dict[str, str], sizes: list[int], message: bytes, seed: int) -> list[float]:
    """A message of `rotate` and `eden`, perhaps with `fold` before or `sample` between; with each one's parameter."""
    n, length, p = sum(sizes), int(stages["rotate"] or 4096), float(stages.get("sample") or 0.05)
    layers = int(stages["fold"] or 20) if "fold" in stages else 1
    all_numbers, n = n, -(-n // layers)
    whole = rotated(n, length)
    kept = sampled(whole, p) if "sample" in stages else whole
    bits, cut = int(stages["eden"] or 1), len(kept) + (len(kept) > 0)
    row = int.from_bytes(message[cut:], "little")
    symbols = [row >> bits * place & (1 << bits) - 1 for place in range(sum(kept))]
    numbers = eden(symbols, octets(message[:cut]), kept, bits)
    if "sample" in stages:
        numbers = scattered(numbers, whole, p, seed)
    numbers = turned_back(numbers, n, length, seed)
    return unfolded(numbers, all_numbers, seed) if layers > 1 else numbers
