"""Quiet event loops, and examples that may take their time."""

from __future__ import annotations

import asyncio

from hypothesis import settings

# pytest-asyncio asks for "the" event loop before it makes its own. Unless told that there is none, Python makes one for
# the asking, which nobody closes: a ResourceWarning, and so a failure, in whichever test runs when it is collected.
asyncio.set_event_loop(None)

# How fast something is, benchmarks measure; on a busy machine an example takes as long as it takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
