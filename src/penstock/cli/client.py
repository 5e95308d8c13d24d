"""How a command reaches the engine: the process that owns the folder, or this one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import httpx

from penstock.adapters.versions.folder import FolderVersions
from penstock.application import make_app
from penstock.candidates import VERSIONS_FOLDER, load_applied, load_serving
from penstock.cli.main import err
from penstock.cli.up_file import up_file
from penstock.compose import Node, Stores, check_emails, make_node, open_stores
from penstock.core.errors import (
    Conflict,
    DataCorrupt,
    DefinitionError,
    EventRejected,
    Fenced,
    Overloaded,
    PenstockError,
    SettingsError,
    Unavailable,
)
from penstock.project import Project, load_project
from penstock.settings import load_settings
from penstock.templates import require_templates

BASE_URL = "http://penstock.invalid"
TIMEOUT_S = 600.0

KINDS: dict[str, type[PenstockError]] = {
    "E1": DefinitionError, "E2": SettingsError, "E3": EventRejected, "E4": Unavailable,
    "E5": Conflict, "E6": Fenced, "E7": DataCorrupt,
}  # fmt: skip
"""What kind of error a code is, so that an error of the engine ends a command as its own would."""

Result = TypeVar("Result")


def running_url(data_dir: Path) -> str:
    """Return the URL of the process that owns a data folder; empty if none answers."""
    try:
        said = json.loads(up_file(data_dir).read_text(encoding="utf-8"))
        url = str(said["url"])
        os.kill(int(said["pid"]), 0)
        httpx.get(f"{url}/health", timeout=2.0).raise_for_status()
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, httpx.InvalidURL):
        return ""
    return url


class Admin:
    """The admin API as commands call it; an error of the other side is raised here.

    Args:
        http: A client whose base URL is the engine's.
        key: The admin key.
    """

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"}

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON of a POST.

        Raises:
            Unavailable: The engine did not answer (E414).
            PenstockError: What the engine said is wrong, with its own code.
        """
        return _result(await _asked(self._http.post(path, json=body, headers=self._headers)))

    async def get(self, path: str, **params: str) -> Any:
        """Return the JSON of a GET; errors as in `post`."""
        return _result(await _asked(self._http.get(path, params=params, headers=self._headers)))

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield the JSON lines of a POST as they come; errors as in `post`."""
        try:
            async with self._http.stream("POST", path, json=body, headers=self._headers) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    _result(answer)
                async for line in answer.aiter_lines():
                    if line.strip():
                        yield json.loads(line)
        except httpx.HTTPError as error:
            raise _away(type(error).__name__) from error


async def _asked(answer: Awaitable[httpx.Response]) -> httpx.Response:
    try:
        return await answer
    except httpx.HTTPError as error:
        raise _away(type(error).__name__) from error


def _result(answer: httpx.Response) -> Any:
    if answer.status_code == httpx.codes.OK:
        return answer.json()
    try:
        said = answer.json()
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            after_s = int(answer.headers.get("retry-after", "1"))
            raise Overloaded(said["code"], said["message"], fix=said["fix"], retry_after_s=after_s)
        error = error_of(said["code"], said["message"], fix=said["fix"], where=said.get("path", ""))
    except (ValueError, KeyError, TypeError):
        error = _away(f"status {answer.status_code}")
    raise error


def error_of(code: str, what: str, *, fix: str, where: str = "") -> PenstockError:
    """Return the error that the engine told, as the kind that its code says."""
    return KINDS.get(code[:2], Unavailable)(code, what, fix=fix, where=where)


def _away(how: str) -> Unavailable:
    return Unavailable("E414", f"the engine did not answer: {how}",
                       fix="look at what `penstock up` printed; start it again, or stop it and run the "
                       "command without it")  # fmt: skip


@asynccontextmanager
async def _beside(url: str, key: str) -> AsyncIterator[Admin]:
    """Reach the process that owns the folder."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
        yield Admin(http, key)


@asynccontextmanager
async def _within(project: Project, key: str, *, apply_changed: bool) -> AsyncIterator[Admin]:
    """Reach an engine in this process."""
    stores = open_stores(project)
    try:
        async with in_process(project, stores, apply_changed=apply_changed) as (_, http):
            yield Admin(http, key)
    finally:
        stores.close()


@asynccontextmanager
async def in_process(
    project: Project, stores: Stores, *, apply_changed: bool = True
) -> AsyncIterator[tuple[Node, httpx.AsyncClient]]:
    """Run a project's node in this process, and reach it as if over HTTP."""
    node = make_node(project, stores)
    check_emails(node)
    node.pending = node.pending and apply_changed
    try:
        await node.start()
        if node.pending:
            ended = await node.versions.ended()
            if ended is not None and ended.error is not None:
                raise ended.error
        server = project.settings.server
        app = make_app(node, f"http://{server.host}:{server.port}")
        async with httpx.AsyncClient(
            transport=_InProcess(app), base_url=BASE_URL, timeout=TIMEOUT_S
        ) as http:
            yield node, http
    finally:
        await node.close()


class _InProcess(httpx.AsyncBaseTransport):
    """Calls an ASGI application in this process.

    httpx has one too, which hands a response over when it is whole; here its body comes as it is
    made, and whoever stops reading stops the work, as over a socket.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        url = request.url
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme, "path": url.path, "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query, "server": (url.host, url.port or 80), "client": ("127.0.0.1", 0),
            "root_path": "",
        }  # fmt: skip
        call = _Call(self._app, scope, body)
        start = await call.next_message()
        return httpx.Response(start["status"], headers=start["headers"], stream=call)


class _Call(httpx.AsyncByteStream):
    """One request to the application: the messages that it sends, in order."""

    def __init__(self, app: Any, scope: dict[str, Any], body: bytes) -> None:
        self._body: bytes | None = body
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(8)
        self._gone = asyncio.Event()
        self._task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            if not self._gone.is_set():
                await self._messages.put(None)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if not self._gone.is_set():
            await self._messages.put(message)

    async def next_message(self) -> dict[str, Any]:
        """Return what the application sends next; what it raises is raised here."""
        message = await self._messages.get()
        if message is None:
            await self._task
            return {"body": b"", "more_body": False}
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.next_message()
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        self._gone.set()
        while not self._messages.empty():
            self._messages.get_nowait()  # an application that waits to send goes on, and sees it
        await asyncio.gather(self._task, return_exceptions=True)


class Files(Enum):
    """Which definitions a command goes by in this process. A running `penstock up` goes by its own."""

    CHANGED = "changed"
    """The project's files: changed ones are applied first, as `penstock up` does."""
    APPLIED = "applied"
    """What serves, whatever the files are: for what goes back, or is told to."""
    EITHER = "either"
    """The files; what serves, and a word about it, if they are broken: for what sends nothing."""


def with_admin(
    project_dir: Path, work: Callable[[Admin], Awaitable[Result]], files: Files = Files.CHANGED
) -> Result:
    """Reach the engine and do some work: over a socket if `penstock up` runs, else in this process.

    Args:
        project_dir: The project's folder. Beside `penstock up` only its settings are read: it has
            loaded the definitions that it goes by, and the files may be in the middle of an edit.
        work: What to do.
        files: Which definitions to go by in this process.

    Raises:
        SettingsError: The settings are wrong, or no admin key is set (E217).
        DefinitionError: The files are broken; it says what serves, and how to go by that.
        Unavailable: Another process owns the folder and does not answer (E407).
    """
    root = project_dir.resolve()
    settings = load_settings(root / "penstock.toml")
    key = settings.server.admin_key
    if not key:
        raise SettingsError("E217", "no admin key is set, which commands show to the engine", where="server.admin_key",
                            fix="set it in penstock.toml to a long random text, then restart `penstock up`")  # fmt: skip
    url = running_url(root / settings.data_dir)
    project = None if url else _chosen(root, files)

    async def run() -> Result:
        changed = files is not Files.APPLIED
        reached = (
            _beside(url, key) if project is None else _within(project, key, apply_changed=changed)
        )
        async with reached as found:
            return await work(found)

    return asyncio.run(run())


def _chosen(root: Path, files: Files) -> Project:
    """Return the project that a command in this process goes by."""
    if files is Files.APPLIED:
        # What only looks or goes back must work when the files are wrong: then above all.
        return load_serving(root, always=True)[0]
    try:
        project = load_project(root)
        if _is_to_be_applied(project):
            require_templates(project)
    except DefinitionError as error:
        settings = load_settings(root / "penstock.toml")
        active = FolderVersions(root / settings.data_dir / VERSIONS_FOLDER).load().active
        if active is None:
            raise
        # Files that do not come to serve by themselves are nothing to wait for.
        if files is Files.EITHER or settings.definitions.apply == "command":
            err.print(f"The project's files, as they are now, are broken; this goes by definitions {active.number}, "
                      f"which serve.\n{error}")  # fmt: skip
            return load_applied(root)
        raise DefinitionError(
            error.code, f"the project's files, as they are now, are broken: {error.what}", where=error.where,
            fix=f"{error.fix}; or go by definitions {active.number}, which serve, with `penstock send --applied`",
        ) from error  # fmt: skip
    return project


def _is_to_be_applied(project: Project) -> bool:
    """Return whether the files come to serve as soon as an engine starts on them."""
    active = FolderVersions(project.data_dir / VERSIONS_FOLDER).load().active
    changed = active is not None and active.digest != project.digest
    return changed and project.settings.definitions.apply == "up"
