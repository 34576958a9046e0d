"""What another rule would have made of a run's updates: kept ones, aggregated again.

Updates are replayed, devices are not retrained: every delta was trained from the model that the *recorded* rule had
made. The further another rule's model moves away from that, the less its curve says about a run of its own.
"""

from fedmq.replay.course import Candidate, Course, Point, Replay
from fedmq.replay.record import Record, open_record

__all__ = ["Candidate", "Course", "Point", "Record", "Replay", "open_record"]
