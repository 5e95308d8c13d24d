"""An ASGI application that is loaded while others are answered; who needs it sooner waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class LaterApp:
    """The application that a function makes, once it is made.

    Args:
        make: Imports and makes it; called on a thread.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def load(self) -> None:
        """Make the application; whoever waits for it goes on.

        Raises:
            Exception: What `make` raised; whoever waits, and whoever asks later, gets it too.
        """
        try:
            app = await asyncio.to_thread(self._make)
        except Exception as error:
            self._made.set_exception(error)
            self._made.exception()  # it is raised here too: nobody need have waited
            raise
        self._made.set_result(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Have the application answer."""
        # One who gives up waiting must not take it from the others.
        app = await asyncio.shield(self._made)
        await app(scope, receive, send)
