"""What a share's process and its parent say to each other, in lines.

To the process: an `Order` as JSON; then `GO`, when all processes are ready; then `COUNT`, for what it has done so far.
From it, JSON: ``{"ready": null}``, ``{"count": …}``, ``{"ended": null}``, ``{"failed": "a sentence"}``.
"""

from typing import Final

GO: Final = "go"
COUNT: Final = "count"
READY: Final = "ready"
ENDED: Final = "ended"
FAILED: Final = "failed"
