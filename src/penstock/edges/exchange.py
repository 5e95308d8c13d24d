"""One ASGI request on a connection of ours: what an ordinary route receives and sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from penstock.edges.asgi import Answer, fault_answer, log_fault


class Wire(Protocol):
    """What an exchange needs of its connection."""

    def answered(self, answer: Answer) -> None:
        """Write a whole answer and go on."""
        ...

    def send_part(self, data: bytes) -> bool:
        """Write a part of an answer; return False while the client does not take it."""
        ...

    def default_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Return the headers that every answer has."""
        ...

    def is_last(self) -> bool:
        """Return whether the connection closes after this answer."""
        ...

    def finish(self, *, whole: bool) -> None:
        """Go on after an answer that was sent in parts, or give the connection up if it is not whole."""
        ...


def scope_of(
    config: Config, transport: asyncio.BaseTransport, app_state: Mapping[str, Any], method: bytes,
    http_version: str, url: bytes, headers: list[tuple[bytes, bytes]],
) -> dict[str, Any]:  # fmt: skip
    """Return the ASGI scope of a request, as uvicorn makes it.

    Raises:
        HttpParserError: The target is no URL.
        UnicodeDecodeError: Its path is not ASCII.
    """
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": http_version,
        "server": get_local_addr(transport),  # type: ignore[arg-type]
        "client": get_remote_addr(transport),  # type: ignore[arg-type]
        "scheme": "https" if is_ssl(transport) else "http",  # type: ignore[arg-type]
        "method": method.decode("ascii"),
        "root_path": config.root_path,
        "path": config.root_path + (unquote(path) if "%" in path else path),
        "raw_path": config.root_path.encode("ascii") + parsed.path,
        "query_string": parsed.query or b"",
        "headers": headers,
        "state": dict(app_state),
    }


class Exchange:
    """A request that the application answers.

    Args:
        wire: The connection.
        scope: The ASGI scope.
        body: The whole body.
    """

    def __init__(self, wire: Wire, scope: dict[str, Any], body: bytes) -> None:
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._wire = wire
        self._scope = scope
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._left = False
        self._start: Mapping[str, Any] | None = None
        self._begun = False
        """Something of the answer was written."""
        self._complete = False
        self._chunked = False

    def client_left(self) -> None:
        """Tell the application, if it asks, and let it send into the void."""
        self._left = True
        self._gone.set()
        self.may_write.set()

    async def run(self, app: Any) -> None:
        """Have the application answer; whatever it does, there is one answer or the connection ends."""
        try:
            await app(self._scope, self._receive, self._send)
            failure: Exception | None = None
        except Exception as error:  # noqa: BLE001 - its message may quote what a person sent
            failure = error
        if self._complete:
            return
        if self._begun:
            if failure is not None:
                log_fault(failure)
            self._wire.finish(whole=False)
        else:
            self._complete = True
            self._wire.answered(
                fault_answer(failure or RuntimeError("the application sent no answer"))
            )

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self._complete:
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if self._left:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        assert self._start is not None, "an answer starts with its head"
        assert not self._complete, "an answer ends once"
        body, more = message.get("body", b""), message.get("more_body", False)
        if not more and not self._begun:
            self._complete = True
            self._gone.set()
            self._send_whole(self._start, body)
            return
        data = self._framed(body, more=more)
        if not self._begun:
            self._begun = True
            data = self._streamed_head(self._start) + data
        if not self._wire.send_part(data):
            self.may_write.clear()
        if more:
            await self.may_write.wait()
        else:
            self._complete = True
            self._gone.set()
            self._wire.finish(whole=True)

    def _send_whole(self, start: Mapping[str, Any], body: bytes) -> None:
        """Write head and body at once."""
        headers = [(name.lower(), value) for name, value in start.get("headers", ())]
        names = {name for name, _ in headers}
        if b"content-length" not in names and not _bodiless(start["status"]):
            headers.append((b"content-length", b"%d" % len(body)))
        data = self._rendered(start["status"], headers)
        self._wire.send_part(data if self._scope["method"] == "HEAD" else data + body)
        self._wire.finish(whole=True)

    def _streamed_head(self, start: Mapping[str, Any]) -> bytes:
        headers = [(name.lower(), value) for name, value in start.get("headers", ())]
        if self._chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        return self._rendered(start["status"], headers)

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if not self._begun:
            assert self._start is not None, "an answer starts with its head"
            names = {name.lower() for name, _ in self._start.get("headers", ())}
            self._chunked = (
                b"content-length" not in names and self._scope["http_version"] == "1.1"
                and not _bodiless(self._start["status"])
            )  # fmt: skip
        if self._scope["method"] == "HEAD":
            return b""
        if not self._chunked:
            return body
        part = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        return part if more else part + b"0\r\n\r\n"

    def _rendered(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s\r\n" % one for one in headers]
        lines += [b"%s: %s\r\n" % one for one in self._wire.default_headers()]
        if self._wire.is_last():
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


def _bodiless(status: int) -> bool:
    return status in (204, 304) or status < 200
