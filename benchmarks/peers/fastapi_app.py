"""The collector and the profile read in idiomatic FastAPI, as durable as ours and with less to do.

    python -m benchmarks.peers.fastapi_app PORT DATABASE

Fair means: the same server (uvicorn, uvloop, httptools, no access log), the same JSON in, pydantic
models for what we validate with msgspec, the write key checked, consent checked, and 200 only after
an fsync. The log is SQLite with `synchronous=FULL`; requests that arrive during a commit share the
next one, as ours do, so that no figure is a count of fsyncs. It has no features, no identity, no
de-duplication, no dead letters, no limits and no metrics.
"""

import asyncio
import base64
import json
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

WRITE_KEY = "bench-web-key"
READ_KEY = "bench-read-key"
SCHEMA = """
PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS profiles (id TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class Model(BaseModel):
    """Camel case on the wire; fields that are not declared are dropped."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Consent(Model):
    """What a person permits."""

    category_preferences: dict[str, bool] = {}


class Context(Model):
    """What surrounds an event."""

    consent: Consent = Consent()


class Event(Model):
    """One event of the Segment spec."""

    type: Literal["track", "page", "identify", "screen", "group", "alias"]
    message_id: Annotated[str, Field(min_length=1, max_length=100)]
    event: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    timestamp: datetime | None = None
    properties: dict[str, Any] = {}
    context: Context = Context()


class Batch(Model):
    """Many events."""

    batch: list[Event]
    sent_at: datetime | None = None


class Accepted(BaseModel):
    """The answer."""

    success: bool = True


class Profile(BaseModel):
    """A profile, with the fields that ours has."""

    found: bool
    features: dict[str, Any]
    traits: dict[str, Any]
    consent: dict[str, str]
    permitted: list[str]
    identifiers: dict[str, list[str]]
    email_token: str
    served: str
    reason: str
    as_of: str
    profile_as_of: str
    age_ms: int
    definitions: str
    withheld: list[str]


class GroupLog:
    """One writing thread; whatever arrived during a commit is the next commit."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.thread = ThreadPoolExecutor(1)
        self.waiting: list[tuple[list[str], asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None

    async def append(self, bodies: list[str]) -> None:
        """Return when the bodies are on the disk."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((bodies, future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run())
        await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            group, self.waiting = self.waiting, []
            rows = [(body,) for bodies, _ in group for body in bodies]
            await loop.run_in_executor(self.thread, self._write, rows)
            for _, future in group:
                future.set_result(None)

    def _write(self, rows: list[tuple[str]]) -> None:
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT INTO log (body) VALUES (?)", rows)
        self.connection.execute("COMMIT")


def make_app(path: str) -> FastAPI:
    """Return the application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.log = GroupLog(path)
        app.state.reader = sqlite3.connect(path, check_same_thread=False)
        yield

    app = FastAPI(lifespan=lifespan)

    async def write_key(authorization: Annotated[str, Header()] = "") -> None:
        shown = base64.b64decode(authorization.removeprefix("Basic ")).decode().rstrip(":")
        if not secrets.compare_digest(shown, WRITE_KEY):
            raise HTTPException(401)

    async def read_key(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization, f"Bearer {READ_KEY}"):
            raise HTTPException(401)

    @app.post("/v1/track", dependencies=[Depends(write_key)])
    async def track(event: Event) -> Accepted:
        await keep([event])
        return Accepted()

    @app.post("/v1/batch", dependencies=[Depends(write_key)])
    async def batch(body: Batch) -> Accepted:
        await keep(body.batch)
        return Accepted()

    async def keep(events: list[Event]) -> None:
        permitted = [
            event.model_dump_json() for event in events
            if event.context.consent.category_preferences.get("personal")
        ]  # fmt: skip
        if permitted:
            await app.state.log.append(permitted)

    @app.get("/v1/profiles/{identifier}", dependencies=[Depends(read_key)])
    async def profile(identifier: str) -> Profile:
        row = app.state.reader.execute(
            "SELECT body FROM profiles WHERE id = ?", (identifier,)
        ).fetchone()
        if row is None:
            raise HTTPException(404)
        return Profile(**json.loads(row[0]))

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools",
        access_log=False, log_level="warning",
    )  # fmt: skip
