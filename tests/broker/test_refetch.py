"""A link that is cut again and again while a model comes down: how much of it comes twice."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Literal

import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.vectors import Layout, Variable
from tests.chaos.weather import Forecast, Weather

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fedmq.transport.mosquitto import Mosquitto

    Start = Callable[..., Awaitable[Mosquitto]]

pytestmark = pytest.mark.broker

POLICY = Policy(min_devices=1, quorum=1, soft_deadline_s=60, hard_deadline_s=60)
SIZE, CHUNK_BYTES = 150_000, 8192
WHOLE = 4 * SIZE
CUTS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


@pytest.mark.parametrize("protocol", [5, 4], ids=["MQTT 5", "MQTT 3.1.1"])
async def test_a_model_comes_down_over_a_link_that_is_cut_six_times(
    start_mosquitto: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Literal[4, 5]
) -> None:
    """The cuts by what has passed the link. The device trains when all that the broker's session held has come, too."""
    monkeypatch.setattr("fedmq.transport.backoff.Backoff.delay", lambda *_: 0.05)
    exact, gate = parse("float32"), threading.Event()
    encoding = Encoding(up=exact, down=exact, key=exact, chunk_bytes=CHUNK_BYTES)
    federation = Federation("test", policy=POLICY, stop=StopWhen(rounds=1), encoding=encoding)
    layout, broker = Layout((Variable("w", (SIZE,)),)), await start_mosquitto()
    async with Weather(broker.port, Forecast(bandwidth=WHOLE / 2)) as weather:

        def transport(port: int = weather.port) -> object:
            return open_transport(f"mqtt://127.0.0.1:{port}", Credentials(), protocol=protocol)

        async with rig(federation, transport, tmp_path, layout) as running:  # type: ignore[arg-type]  # not memory
            running.transport = lambda: transport(broker.port)  # type: ignore[assignment,return-value]  # (same)
            running.start_aggregator()
            running.transport = transport  # type: ignore[assignment]  # (same)
            device = running.start_device("device", ShiftTrainer(layout, gate=lambda: gate.wait(60)))
            for share in CUTS:
                await running.until(lambda share=share: weather.seen.bytes_down > share * WHOLE)  # type: ignore[misc]  # its default
                weather.cut()
            await running.until(lambda: device.replica.version == 1)
            gate.set()
            await running.ended()
    again = weather.seen.bytes_down / WHOLE - 1
    figures = f"{again:.1%} of the model came twice, over {weather.seen.connections} connections"
    logging.getLogger(__name__).warning(figures)
    assert weather.seen.connections == 1 + len(CUTS)
    assert again < 0.2, figures
