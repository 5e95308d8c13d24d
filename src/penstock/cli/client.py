"""How a command reaches the engine: the process that owns the folder, or this one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from penstock.compose import make_app, make_node, open_stores
from penstock.core.errors import EventRejected, Unavailable
from penstock.project import Project, load_project

UP_FILE = "up.json"
BASE_URL = "http://penstock.invalid"
TIMEOUT_S = 600.0

Result = TypeVar("Result")


def up_file(project: Project) -> Path:
    """Return where the process that owns the folder says how to reach it."""
    return project.data_dir / UP_FILE


def running_url(project: Project) -> str:
    """Return the URL of the process that owns the project's folder; empty if none answers."""
    try:
        said = json.loads(up_file(project).read_text(encoding="utf-8"))
        url = str(said["url"])
        os.kill(int(said["pid"]), 0)
        httpx.get(f"{url}/health", timeout=2.0).raise_for_status()
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return ""
    return url


def readiness(url: str) -> tuple[bool, str]:
    """Return whether a running process is ready, and if not, why.

    Raises:
        Unavailable: It does not answer (E414).
    """
    try:
        body = httpx.get(f"{url}/ready", timeout=5.0).json()
    except (httpx.HTTPError, ValueError) as error:
        raise _away(error) from error
    return bool(body["ok"]), str(body["reason"])


class Admin:
    """The admin API as commands call it; an error of the other side is raised here.

    Args:
        http: A client whose base URL is the engine's.
        project: The project, for its key.
    """

    def __init__(self, http: httpx.AsyncClient, project: Project) -> None:
        self.http = http
        self.project = project
        self._headers = {"Authorization": f"Bearer {project.settings.server.admin_key}"}

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON of a POST.

        Raises:
            EventRejected: The request is wrong (its own code).
            Unavailable: The engine did not answer (E414) or can't now (its own code).
        """
        return self._result(
            await self._asked(self.http.post(path, json=body, headers=self._headers))
        )

    async def get(self, path: str, **params: str) -> Any:
        """Return the JSON of a GET; errors as in `post`."""
        return self._result(
            await self._asked(self.http.get(path, params=params, headers=self._headers))
        )

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield the JSON lines of a POST; errors as in `post`."""
        try:
            async with self.http.stream("POST", path, json=body, headers=self._headers) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    self._result(answer)
                async for line in answer.aiter_lines():
                    if line.strip():
                        yield json.loads(line)
        except httpx.HTTPError as error:
            raise _away(error) from error

    @staticmethod
    async def _asked(answer: Awaitable[httpx.Response]) -> httpx.Response:
        try:
            return await answer
        except httpx.HTTPError as error:
            raise _away(error) from error

    @staticmethod
    def _result(answer: httpx.Response) -> Any:
        if answer.status_code == httpx.codes.OK:
            return answer.json()
        try:
            said = answer.json()
            code, what, fix = said["code"], said["message"], said["fix"]
        except (ValueError, KeyError):
            raise Unavailable("E414", f"the engine answered {answer.status_code}",
                              fix="look at what `penstock up` printed") from None  # fmt: skip
        kind = (
            Unavailable
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            else EventRejected
        )
        raise kind(code, what, fix=fix)


def _away(error: Exception) -> Unavailable:
    return Unavailable("E414", f"the engine did not answer: {type(error).__name__}",
                       fix="start it with `penstock up`, or stop it and try again")  # fmt: skip


@asynccontextmanager
async def admin(project: Project) -> AsyncIterator[Admin]:
    """Reach the engine: over a socket if `penstock up` runs, else in this process.

    Raises:
        Unavailable: Another process owns the folder and does not answer (E407).
    """
    url = running_url(project)
    if url:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
            yield Admin(http, project)
        return
    stores = open_stores(project)
    try:
        node = make_node(project, stores)
        await node.start()
        try:
            base_url = f"http://{project.settings.server.host}:{project.settings.server.port}"
            transport = httpx.ASGITransport(app=make_app(node, base_url))  # type: ignore[arg-type]
            async with httpx.AsyncClient(
                transport=transport, base_url=BASE_URL, timeout=TIMEOUT_S
            ) as http:
                yield Admin(http, project)
        finally:
            await node.close()
    finally:
        stores.close()


def with_admin(project_dir: Path, work: Callable[[Admin], Awaitable[Result]]) -> Result:
    """Load a project, reach its engine, and do some work."""

    async def run() -> Result:
        async with admin(load_project(project_dir)) as found:
            return await work(found)

    return asyncio.run(run())
