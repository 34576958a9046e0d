"""Transforms: vector to vector, before anything is rounded. None is needed so far; the slot is tested as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fedmq.codecs.stages import Transform

TRANSFORMS: Final[dict[str, type[Transform]]] = {}
"""Every transform by name."""
