"""Unit tests touch no network: a socket that would connect or listen fails the test."""

import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a unit test must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.fixture(scope="session", autouse=True)
def modules_are_not_garbage() -> Iterator[None]:
    """Collecting looks at what the tests made, and not at every module each time: a hundred times as quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
