"""Module pytest_plugin brings fixtures: `pytest_plugins = ["shoal.testing.pytest_plugin"]`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from shoal.testing import leaks


@pytest_asyncio.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fail the test if it leaves a task, a socket or a thread behind."""
    async with leaks.no_leaks():
        yield
