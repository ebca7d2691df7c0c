from __future__ import annotations

import logging
from collections.abc import Callable

import pytest


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "ddrep")

    def messages() -> list[str]:
        found = list(caplog.messages)
        caplog.clear()
        return found

    return messages
