"""Background tasks that live as long as a service's resources."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any

from cotacoes.errors import setting_error_in


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.TaskGroup]:
    """Run coroutines beside the body; they are cancelled at its end, and one that fails ends the body.

    A SettingError of one of them is raised as it is, other errors in an ExceptionGroup.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(not_cancelled_by_itself(coroutine)) for coroutine in coroutines]
            try:
                await asyncio.sleep(0)  # let all begin: a task that is cancelled before would never be awaited
                yield group
            finally:
                for task in tasks:
                    task.cancel()
    except ExceptionGroup as several:
        raise setting_error_in(several) or several from None


async def not_cancelled_by_itself(work: Awaitable[None]) -> None:
    """Raise RuntimeError if the work is cancelled from within, which a task group would take for a normal end."""
    try:
        await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("a background task was cancelled from within") from error
