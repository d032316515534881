"""The engine's worker: refused with a reason where there is no such device, or no torch."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from ciphershift.errors import ConfigurationError
from ciphershift.server import engine
from ciphershift.server.settings import Settings


def test_a_worker_without_its_device_says_so_and_is_never_ready(zoo: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(engine="torch://cuda:77?threads=1", models=zoo, allow_toy_parameters=True)
    made = engine.make_engine(settings)
    assert made is not None

    async def start_and_wait() -> None:
        made.start()
        try:
            deadline = time.monotonic() + 120
            while not any(record.message == "worker_refused" for record in caplog.records):
                assert time.monotonic() < deadline, "nothing was said"
                await asyncio.sleep(0.1)
        finally:
            await made.stop()

    with caplog.at_level(logging.ERROR, logger="ciphershift.engine"):
        asyncio.run(start_and_wait())
    (record, *_) = [record for record in caplog.records if record.message == "worker_refused"]
    assert "cuda:77" in record.__dict__["detail"]
    assert made.workers == {}


def test_without_torch_the_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"ciphershift\[gpu\]"):
        engine.make_engine(Settings(engine="torch://cpu"))
