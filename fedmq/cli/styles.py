"""How lists look in a terminal."""

from __future__ import annotations

from typing import Any, Final

import click

_STYLES: Final[dict[str, dict[str, Any]]] = {
    "heading": {"bold": True},
    "name": {"fg": "cyan"},
    "quiet": {"dim": True},
}


def style(text: str, role: str) -> str:
    """Return `text` as its role has it; click takes colours out again where no terminal reads it."""
    return click.style(text, **_STYLES[role])
