"""All connections of a server: one timer looks at them, and those that wait the longest give way."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Protocol

from penstock.edges.limits import Limits
from penstock.ports.metrics import Metrics

GIVE_WAY_SHARE = 100
"""A hundredth of the connections gives way at once: looking for them costs a look at all."""


TOLD_MAX = 100
"""Connections over the limit that are given the time to read why they are turned away, or had to give way."""


class Standing(IntEnum):
    """What a connection waits for, in the order in which connections give way to others."""

    REFUSED = 0
    """That the client reads why."""
    IDLE = 1
    """A request."""
    SLOW = 2
    """The rest of a request, or that the client takes an answer."""
    AT_WORK = 3
    """Us."""


class Member(Protocol):
    """A connection, as far as the others are concerned."""

    loop: asyncio.AbstractEventLoop
    since: int
    """The second in which what is waited for began."""

    def standing(self) -> Standing:
        """Return what is waited for."""
        ...

    def look(self, tick: int) -> None:
        """End what has waited for too long."""
        ...

    def give_way(self, *, told: bool) -> bool:
        """End, for others; return whether it is left to read why, since it sent a request slowly.

        Args:
            told: There is time for that.
        """
        ...


class Crowd:
    """The connections that are open. Lives on one event loop.

    Idle connections are a courtesy that ends when there are too many (RFC 9112 §9.5), as nginx ends
    those that it can reuse. Nobody who is at work, or came this very second, gives way: when there is
    nobody else, a newcomer is turned away. So neither ten thousand idle connections nor ten thousand
    that send a byte a second keep the others out.

    Args:
        limits: How many there may be.
        metrics: Where they are counted.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.tick = 0
        """Whole seconds, as they are counted here."""
        self._members: dict[Member, None] = {}  # in the order of their coming
        self._leaving: dict[Member, None] = {}
        """Those that gave way and read why; they are no members any more."""
        self._full_in = -1
        """The second in which nobody more could give way."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Member) -> bool:
        """Watch over a connection; return False if there is no room for it.

        A few of those that are turned away are watched as well, until they have read why.
        """
        over = len(self._members) - self.limits.connections + 1
        room = over <= 0 or self._make_room(over)
        if not room and over > TOLD_MAX - len(self._leaving):
            return False
        self._members[member] = None
        if self._timer is None:
            self._timer = member.loop.call_later(1, self._on_second, member.loop)
        return room

    def watches(self, member: Member) -> bool:
        """Return whether a connection is among those that are ended when they wait for too long."""
        return member in self._members

    def leave(self, member: Member) -> None:
        """Forget a connection."""
        self._members.pop(member, None)
        self._leaving.pop(member, None)

    def _make_room(self, over: int) -> bool:
        """End some connections; return whether that is room enough."""
        if self._full_in == self.tick:
            return False  # a flood does not have everybody looked at for each newcomer
        waiting = [
            member
            for member in self._members
            if member.standing() < Standing.AT_WORK and member.since < self.tick
        ]
        waiting.sort(key=lambda member: (member.standing(), member.since))
        for member in waiting[: max(over, self.limits.connections // GIVE_WAY_SHARE)]:
            self._end(member)
        if len(waiting) < over:
            self._full_in = self.tick
            return False
        return True

    def _end(self, member: Member) -> None:
        reason = member.standing().name.lower()
        self.metrics.count("penstock_connections_ended_total", reason=reason)
        self.leave(member)
        if member.give_way(told=len(self._leaving) < TOLD_MAX):
            self._leaving[member] = None

    def _on_second(self, loop: asyncio.AbstractEventLoop) -> None:
        waited_for = self._members or self._leaving
        self._timer = loop.call_later(1, self._on_second, loop) if waited_for else None
        self.pass_time(1)

    def pass_time(self, seconds: int) -> None:
        """Count seconds, and end what has waited for too long, and what is idle beyond the limit."""
        self.tick += seconds
        idle: list[Member] = []
        for member in list(self._leaving):
            member.look(self.tick)
        for member in list(self._members):
            member.look(self.tick)
            if member.standing() == Standing.IDLE:
                idle.append(member)
        over = len(idle) - self.limits.idle_connections
        if over > 0:
            idle.sort(key=lambda member: member.since)
            for member in idle[:over]:
                self._end(member)
        self.metrics.gauge("penstock_connections", len(self._members))
