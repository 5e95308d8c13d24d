"""The tasks that send campaigns, as whoever ends the process finds them."""

from __future__ import annotations

import asyncio

SEND_TASK = "penstock-send"
"""Their name."""


def stop_sends() -> None:
    """Stop the sends of this event loop; each tells whoever listens, and goes on when sent again."""
    for task in asyncio.all_tasks():
        if task.get_name() == SEND_TASK:
            task.cancel()
