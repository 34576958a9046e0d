"""Quiet event loops."""

from __future__ import annotations

import asyncio

# pytest-asyncio asks for "the" event loop before it makes its own. Unless told that there is none, Python makes one for
# the asking, which nobody closes: a ResourceWarning, and so a failure, in whichever test runs when it is collected.
asyncio.set_event_loop(None)
