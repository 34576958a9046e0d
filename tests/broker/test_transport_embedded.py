"""The conformance suite over the embedded broker, less its known faults."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import pytest

from fedmq.testing.proxy import Proxy
from fedmq.testing.transport import Capabilities, Rig, TransportConformance
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.embedded import Embedded, has_embedded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not has_embedded(), reason="the extra 'embedded' is not installed"),
]


@pytest.fixture(scope="module")
def embedded() -> Iterator[Embedded]:
    broker = Embedded()
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.__aexit__(None, None, None))


class TestEmbedded(TransportConformance):
    capabilities: ClassVar = Capabilities(
        receive_maximum=False, packet_limit=False, refuses=False, refuses_gently=False
    )

    @pytest.fixture
    async def rig(self, embedded: Embedded) -> AsyncIterator[Rig]:
        async with Proxy(embedded.port) as proxy:

            async def cut() -> None:
                proxy.cut()

            yield Rig(
                open_transport(embedded.address, Credentials(), protocol=5),
                open_transport(f"mqtt://127.0.0.1:{proxy.port}", Credentials(), protocol=5),
                cut,
                proxy.hold,
                self.capabilities,
            )
