"""A link that is cut in the middle of a long update: how much goes over it twice."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.testing.proxy import Proxy
from fedmq.transport.address import Credentials, open_transport
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fedmq.transport.mosquitto import Mosquitto

    Start = Callable[..., Awaitable[Mosquitto]]

pytestmark = pytest.mark.broker

POLICY = Policy(min_devices=1, quorum=1, soft_deadline_s=60, hard_deadline_s=60)


@pytest.mark.parametrize(
    ("protocol", "size", "options"),
    [(5, 300_000, ["max_packet_size 8192"]), (4, 1_500_000, [])],
    ids=["MQTT 5, chunks of 8 kB", "MQTT 3.1.1, chunks of 256 kB"],
)
async def test_a_cut_in_mid_transfer_costs_a_few_chunks(
    start_mosquitto: Start, tmp_path: Path, protocol: Literal[4, 5], size: int, options: list[str]
) -> None:
    """Three cuts, after a quarter, a half and three quarters of the update."""
    layout, whole = Layout((Variable("w", (size,)),)), 4 * size
    broker = await start_mosquitto(options)
    exact = parse("float32")
    federation = Federation(
        "test", policy=POLICY, stop=StopWhen(rounds=1), encoding=Encoding(up=exact, down=exact, key=exact)
    )
    async with Proxy(broker.port) as proxy:

        def transport(port: int = proxy.port) -> object:
            return open_transport(f"mqtt://127.0.0.1:{port}", Credentials(), protocol=protocol)

        async with rig(federation, transport, tmp_path, layout) as running:  # type: ignore[arg-type]  # not memory
            running.transport = lambda: transport(broker.port)  # type: ignore[assignment,return-value]  # (same)
            running.start_aggregator()
            running.transport = transport  # type: ignore[assignment]  # (same)
            device = running.start_device("device", ShiftTrainer(layout=layout))
            for share in (0.25, 0.5, 0.75):
                await running.until(lambda share=share: device.counters.bytes_up > share * whole)  # type: ignore[misc]  # its default
                proxy.cut()
            await running.ended()
    assert proxy.connections > 2
    assert device.counters.verdicts == {"accepted": 1}
    np.testing.assert_array_equal(running.model, np.ones(size))
    [report] = running.reports
    again = report.bytes_up / whole - 1
    figures = (
        f"{again:.1%} of the update came twice, {device.counters.bytes_up / whole - 1:.1%} was sent again"
    )
    logging.getLogger(__name__).warning(figures)
    assert again < 0.15, figures
