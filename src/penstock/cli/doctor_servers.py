"""What `penstock doctor` asks a Redis server and a schema registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from penstock.adapters.clock import SystemClock
from penstock.cli.finding import (
    OK,
    Finding,
    apart_ms,
    check,
    fault,
    require_together,
)
from penstock.core.errors import DefinitionError, PenstockError, Unavailable
from penstock.flows.publishing import NEW, Standing, standings
from penstock.project import Project
from penstock.registries import make_registry, published
from penstock.settings import RedisSettings
from penstock.stores import Asked, ask_redis

MEMORY_SHARE_MAX = 0.9
"""Of what a server may take: beyond it there is no room for a second set of leaves, and soon for none."""


def redis(project: Project) -> Iterator[Finding]:
    """Yield what is found of the Redis server."""
    try:
        asked = ask_redis(project, SystemClock())
    except PenstockError as error:
        yield fault("redis", error)
        return
    yield from redis_findings(asked, project.settings.store.redis)


def redis_findings(asked: Asked, told: RedisSettings) -> Iterator[Finding]:
    """Yield what is to be said of a server that takes leaves."""
    facts = asked.facts
    limit = f" of {facts.memory_bytes_max >> 20}" if facts.memory_bytes_max else ""
    followed = f"{facts.replicas} {'replica follows' if facts.replicas == 1 else 'replicas follow'}"
    kept = "an append-only file" if facts.appends else "no append-only file"
    version = ".".join(map(str, facts.version))
    yield Finding(OK, f"redis: Redis {version} has our functions and takes leaves; {facts.memory_bytes >> 20}{limit} MiB, "
                  f"`{facts.policy}`, {followed}, {kept}")  # fmt: skip
    if facts.replicas < told.wait_replicas:
        yield fault("redis replicas", Unavailable(
            "E451", f"{followed}, and {told.wait_replicas} are to confirm what is written", where=told.url,
            fix="start the replicas, or lower `store.redis.wait_replicas`: until then nothing counts as confirmed"))  # fmt: skip
    if facts.memory_bytes > MEMORY_SHARE_MAX * facts.memory_bytes_max > 0:
        yield fault("redis memory", Unavailable(
            "E453", f"{facts.memory_bytes >> 20} of {facts.memory_bytes_max >> 20} MiB are taken", where=told.url,
            fix="give the server more: when it is full leaves are written no more, and new definitions need room for a second set"))  # fmt: skip
    if facts.time_ms:
        apart = apart_ms(facts.time_ms, asked.before_ms, asked.after_ms)
        yield check(
            "redis clock", lambda: require_together(apart, "the Redis server's clock", told.url)
        )


def registry(project: Project) -> Iterator[Finding]:
    """Yield what is found of the schema registry: whether it answers, and whether events fit what is there."""
    named = project.settings.registry
    try:
        asked = make_registry(project)
        assert asked is not None, "the project has one"
        with closing(asked):
            found = standings(asked, published(project), named.compatibility, named.compatibilities)
    except PenstockError as error:
        yield fault("registry", error)
        return
    broken = [one for one in found if not one.fits]
    if broken:
        yield fault("registry", DefinitionError(
            "E195", f"{len(broken)} of {len(found)} events do not fit what is registered: {'; '.join(map(_why, broken))}", where=named.url,
            fix="keep what others go on sending or reading; `penstock schemas check` shows every break"))  # fmt: skip
        return
    new = sum(one.what == NEW for one in found)
    told = f", {new} not registered yet: `penstock schemas publish`" if new else ""
    yield Finding(OK, f"registry: it answers, and {len(found)} events fit{told}")


def _why(one: Standing) -> str:
    reasons = [f"{found.path} {found.what}" for found in one.breaks] or list(one.reasons)
    return f"{one.one.subject}{': ' if reasons else ''}{', '.join(reasons[:2])}"
