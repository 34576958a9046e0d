"""What things are, in plain words: what lies on disk, and what rules are made of."""

from fedmq.inspection.docs import Doc, read_doc
from fedmq.inspection.things import as_text, inspect_path

__all__ = ["Doc", "as_text", "inspect_path", "read_doc"]
