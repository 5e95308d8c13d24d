"""Where a process listens, or why it can't."""

from __future__ import annotations

import socket

from penstock.core.errors import SettingsError


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: An address.
        port: A port; 0 picks a free one.
        setting: What says so, for who has to change it.

    Raises:
        SettingsError: The address can't be listened on (E210).
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError("E210", f"{host} port {port} can't be listened on: {error.strerror}", where=setting,
                            fix="stop what listens there, or choose another with --port") from error  # fmt: skip
    listener.listen(2048)
    listener.setblocking(False)
    return listener
