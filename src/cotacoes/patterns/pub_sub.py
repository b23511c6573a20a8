"""Publish/subscribe: the wire between the writer and whoever listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Bus(Protocol):
    """A wire with channels. Every call ends by the bus's own deadline, with BusUnavailableError where it is away."""

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Send (channel, message) pairs in order; how many heard each."""

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """Listen; BusUnavailableError when the link is dead."""

    async def ping(self) -> None:
        """Return where the bus can answer."""
