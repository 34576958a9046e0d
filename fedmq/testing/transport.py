"""The conformance suite for transports: what `fedmq.transport.interface` promises, in executable form.

Subclass `TransportConformance` in a test module, give it a fixture named ``rig`` that yields a `Rig`, and run it with
pytest and pytest-asyncio in its automatic mode::

    class TestMine(TransportConformance):
        capabilities = Capabilities(refuses=False)

        @pytest.fixture
        async def rig(self):
            async with my_broker() as broker:
                yield Rig(
                    broker.transport(), broker.transport_over_a_bad_link(), broker.cut, self.capabilities
                )

What an implementation cannot do is named in its `Capabilities`; the tests of it are then skipped, with that name.
"""

from __future__ import annotations

from fedmq.testing.transport_delivery import Delivery
from fedmq.testing.transport_faults import Faults
from fedmq.testing.transport_rig import Capabilities, Rig, collect, raises
from fedmq.testing.transport_sessions import Sessions

__all__ = ["Capabilities", "Rig", "TransportConformance", "collect", "raises"]


class TransportConformance(Delivery, Sessions, Faults):
    """The tests; each takes the fixture ``rig``."""
