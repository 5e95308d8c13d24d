"""Routes that show people without a key: they answer this machine only, while a project is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from penstock.core.errors import EventRejected
from penstock.edges.asgi import error_answer

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], None]


def require_this_machine(connection: Connection, handler: BaseRouteHandler) -> None:
    """Refuse pages of other sites, and names that only pretend to be this machine.

    A browser sends other sites' requests to loopback too; it says where they come from, and under
    which name it came (DNS rebinding).

    Raises:
        EventRejected: The request does not come from a page of this server (E389).
    """
    require_this_name(connection, handler)
    if connection.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise _not_here("Sec-Fetch-Site")


def require_this_name(connection: Connection, _: BaseRouteHandler) -> None:
    """Refuse names that only pretend to be this machine.

    Raises:
        EventRejected: The request came under another name (E389).
    """
    host = connection.headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name not in LOOPBACK_NAMES:
        raise _not_here("Host")


def this_machine_only(guard: Guard = require_this_machine) -> dict[str, Any]:
    """Return what Litestar's `get` and `post` take for a route that answers this machine only.

    It is not part of the documented API: only `penstock up` on a loopback address mounts it.
    """
    return {
        "guards": [guard], "include_in_schema": False, "exception_handlers": {EventRejected: _refuse},
    }  # fmt: skip


def _not_here(header: str) -> EventRejected:
    return EventRejected("E389", "this route answers this machine only", where=header,
                         fix="ask for it at http://127.0.0.1 with the port of `penstock up`")  # fmt: skip


def _refuse(_: Request[Any, Any, Any], error: EventRejected) -> Response[bytes]:
    status = 403 if error.code == "E389" else 400
    return Response(
        error_answer(error, status).body, status_code=status, media_type="application/json"
    )
