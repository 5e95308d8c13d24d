"""The whole engine under seeded faults, in one thread: collector, group commit, fold, store, serving.

A history is a process that is killed and started again, on disks that outlive it, with SDKs that
retry, people who withdraw and unsubscribe, and readers who check every answer while it goes on. What
runs is what `penstock up` runs (`compose.make_node`); only time, threads and disks are dice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.compose import Node, Stores, make_node
from penstock.core.errors import Overloaded, Unavailable
from penstock.core.event import SEGMENT, decode_batch
from penstock.core.record import decode_record
from penstock.core.step import Step
from penstock.core.time import format_instant, parse_instant
from penstock.flows.replay import LIVE_EPOCH
from penstock.flows.serve import Who
from penstock.flows.track import DECIDED
from penstock.project import Project
from penstock.testing.audit import audit
from penstock.testing.faulty_disks import (
    DecisionsDisk,
    Disk,
    LogDisk,
    Planted,
    RegisterDisk,
    StoreDisk,
    World,
    new_disks,
)
from penstock.testing.virtual import LoopClock, Threads, VirtualLoop

USERS = 3
RETRY_S = 0.5
SLOW_MS_MAX = 2_000
HISTORY_S = 6.0
FAULT = 0.03
DEATH = 0.01
SWITCH = 0.15
"""Chance that a start brings other definitions."""
KEY = b"simulation identifier key 32 byt"
WITHDRAWN = "Segment Consent Preference Updated"
CAMPAIGN = "offers"
TRACE_MAX = 60


class Broken(AssertionError):
    """A promise did not hold; the message has the seed and what led there."""


class Story(NamedTuple):
    """What a history had in it."""

    seed: int
    events: int
    deaths: int
    reads: int
    decisions: int


class _Person:
    """What the outside knows of one user."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        """Product -> when it was viewed. Nobody views one twice, so it names its event."""
        self.acknowledged: dict[str, int] = {}
        """Product -> when the answer came."""
        self.withdrawing_at_ms = -1
        """When a withdrawal was sent last, answered or not."""
        self.withdrawn_at_ms = -1
        """When the last withdrawal that was answered was sent."""
        self.unsubscribed = False
        self.asked: dict[str, tuple[str, bytes]] = {}
        """Send -> decision id and content of the first answer."""


class EngineSimulation:
    """One history.

    Args:
        seed: Decides everything.
        project: With features `seen` (`last_k`, k=50, of `Product Viewed`'s `product_id`) and `views` (a
            count of it), a campaign `offers`, and a source of kind `server`.
        changed: The same project with other definitions, which a restart may bring.
        planted: What bug to plant.
        lasts_s: Virtual seconds until the last process is started.
    """

    def __init__(
        self, seed: int, project: Project, changed: Project, planted: Planted = Planted.NONE,
        lasts_s: float = HISTORY_S,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.planted = planted
        self.lasts_s = lasts_s
        self.dice = random.Random(seed)  # noqa: S311 - one seed, one history
        self.projects = (project, changed)
        self.project = project
        self.people = [_Person() for _ in range(USERS)]
        self.unanswered: list[list[dict[str, Any]]] = []
        self.bad: set[str] = set()
        """Message ids of events that were refused one by one: they are kept as dead letters."""
        self.trace: list[tuple[float, str]] = []
        self.events = self.deaths = self.reads = self.decided = 0
        self.faults = FAULT
        self.threads = Threads(self.dice, slow_ms_max=SLOW_MS_MAX, death=DEATH)
        self.loop = VirtualLoop(self.threads)
        self.loop.close()  # it only tells the time, until a process starts
        self.clock = LoopClock(self.loop)
        self.disks = new_disks(_Following(self), KEY)
        self.guards: tuple[Disk, ...] = ()

    # -- a history

    def run(self) -> Story:
        """Play the history, and check what is left on the disks.

        Raises:
            Broken: A promise did not hold.
        """
        end_s = self.loop.time() + self.lasts_s
        while self.loop.time() < end_s:
            self._life()
        self.faults = self.threads.death = 0.0
        self._life(last=True)
        self._check_disks()
        return Story(self.seed, self.events, self.deaths, self.reads, self.decided)

    def _life(self, *, last: bool = False) -> None:
        """One process, from its start to its death or its clean end."""
        loop = self.loop = VirtualLoop(self.threads, self.loop.time() + 0.1)
        self.clock = LoopClock(loop)
        life = loop.create_task(self._last() if last else self._live())

        def ended(_: object) -> None:
            loop.stop()

        life.add_done_callback(ended)
        loop.run_forever()
        life.remove_done_callback(ended)
        died = loop.died
        self._bury(loop)
        if not died:
            life.result()
            return
        self.deaths += 1
        self.note(f"died {died}")
        if self.planted is Planted.REGISTER_FORGETS:
            fresh = new_disks(_Following(self), KEY)
            self.disks = self.disks._replace(suppressions=fresh.suppressions)

    def _bury(self, loop: VirtualLoop) -> None:
        """End the coroutines of a process; nothing that they still do reaches a disk."""
        for disk in self.guards:
            disk.alive = False
        loop.died = ""
        death, self.threads.death = self.threads.death, 0.0
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=60))
        loop.close()
        self.threads.death = death

    async def _live(self) -> None:
        """Start, serve for a while, and stop in one way or another."""
        if self.dice.random() < SWITCH:
            self.project = self.dice.choice(self.projects)
        node = self._node()
        self.note(f"starts on definitions {self.projects.index(self.project)}")
        serving = [asyncio.ensure_future(self._reader(node))]
        await node.start()
        self.note("has started")
        serving += [
            asyncio.ensure_future(one)
            for one in (self._sdk(node), self._sdk(node), self._asker(node), self._asker(node))
        ]
        lasting = asyncio.ensure_future(asyncio.sleep(self.dice.random() * self.lasts_s))
        await asyncio.wait([*serving, lasting], return_when=asyncio.FIRST_COMPLETED)
        for task in serving:
            task.cancel()
        for outcome in await asyncio.gather(*serving, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if self.dice.random() < 0.3:
            self.note("is told to stop")
            await node.close()
            self.note("has stopped")
        else:
            self.die("between two calls")
            await asyncio.sleep(1)

    async def _last(self) -> None:
        """Start on disks that work, answer what is unanswered, and check every answer."""
        node = self._node()
        await node.start()
        while self.unanswered:
            await self._send(node, self.unanswered[0])
        await node.pump.pump()
        await node.engine.settled()
        for user, person in enumerate(self.people):
            await self._read(node, user, settled=True)
            for send in list(person.asked):
                await self._ask(node, user, send)
        await node.close()

    def _node(self) -> Node:
        disks = self.disks
        world = World(self.dice, self.faults, self.planted, self.note, self._later, self.die)
        self.guards = (
            LogDisk(disks.log, world), StoreDisk(disks.store, world),
            RegisterDisk(disks.suppressions, world), DecisionsDisk(disks.decisions, world),
        )  # fmt: skip
        log, store, suppressions, decisions = self.guards
        stores = Stores(disks.keys, log, store, suppressions, decisions)  # type: ignore[arg-type]
        node = make_node(self.project, stores, clock=self.clock, metrics=MemoryMetrics())
        if self.planted is Planted.LIVE_TOO_EARLY:
            node.engine.standing = lambda: (self.clock.now_ms(), True)
        return node

    def _later(self, seconds: float, act: Any) -> None:
        self.loop.call_later(seconds, act)

    def die(self, when: str) -> None:
        """Kill the process at the end of what it is doing."""
        self.loop.died = when
        self.loop.stop()

    # -- those who send

    async def _sdk(self, node: Node) -> None:
        while True:
            await asyncio.sleep(self.dice.random() * 1.2)
            if self.dice.random() < 0.2 and self.unanswered:
                batch = self.dice.choice(self.unanswered)
            else:
                batch = self._batch()
                self.unanswered.append(batch)
            await self._send(node, batch)

    async def _send(self, node: Node, batch: list[dict[str, Any]]) -> None:
        body = msgspec.json.encode({"batch": batch})
        source = next(one for one in node.sources.values() if one.verified)
        while True:
            try:
                intake = await node.collector.take(source, decode_batch(body, SEGMENT))
                break
            except (Unavailable, Overloaded) as error:
                self.note(f"{batch[0]['messageId']}… is answered {error.code}")
                await asyncio.sleep(RETRY_S * (1 + self.dice.random()))
        refused = {one.message_id for one in intake.refused}
        wrong = {event["messageId"] for event in batch if "price" in event["properties"]}
        self.require(refused == wrong, "bad events are refused, and no others")
        self.bad |= refused
        self._answered(batch)

    def _batch(self) -> list[dict[str, Any]]:
        return [self._event() for _ in range(self.dice.randint(1, 4))]

    def _event(self) -> dict[str, Any]:
        self.events += 1
        user = self.dice.randrange(USERS)
        person, now, draw = self.people[user], self.clock.now_ms(), self.dice.random()
        name, properties, permitted = "Product Viewed", dict[str, Any](), True
        if draw < 0.05:
            name, permitted, person.withdrawing_at_ms = WITHDRAWN, False, now
        elif draw < 0.08:
            name, properties = "Unsubscribed", {"channel": "email"}
        elif draw < 0.11:
            properties = {"product_id": "p", "price": "a lot"}
        else:
            product = f"p-{self.events}"
            person.sent[product] = now
            properties = {"product_id": product}
        event: dict[str, Any] = {
            "type": "track", "event": name, "messageId": f"m-{self.events}", "userId": f"u-{user}",
            "properties": properties, "timestamp": format_instant(now),
            "context": {"consent": {"categoryPreferences": {"personalisation": permitted}}},
        }  # fmt: skip
        if self.dice.random() < 0.5:
            # A device belongs to one person here: whose events a shared one's are is another law's.
            event["anonymousId"] = f"a-{user}-{self.dice.randrange(2)}"
        return event

    def _answered(self, batch: list[dict[str, Any]]) -> None:
        now = self.clock.now_ms()
        self.note(f"{', '.join(event['messageId'] for event in batch)} answered")
        for event in batch:
            person = self.people[int(event["userId"].removeprefix("u-"))]
            if event["event"] == WITHDRAWN:
                sent_ms = parse_instant(event["timestamp"])
                person.withdrawn_at_ms = max(person.withdrawn_at_ms, sent_ms)
            elif event["event"] == "Unsubscribed":
                person.unsubscribed = True
            elif event["messageId"] not in self.bad:
                person.acknowledged.setdefault(event["properties"]["product_id"], now)
        if batch in self.unanswered:
            self.unanswered.remove(batch)

    # -- those who read

    async def _reader(self, node: Node) -> None:
        while True:
            await asyncio.sleep(self.dice.random() * 0.8)
            try:
                await self._read(node, self.dice.randrange(USERS), settled=False)
            except Unavailable:
                continue

    async def _read(self, node: Node, user: int, *, settled: bool) -> None:
        person = self.people[user]
        known, withdrawn_at_ms = dict(person.acknowledged), person.withdrawn_at_ms
        asked_at_ms = self.clock.now_ms()
        profile, found = await node.serving.profile(_who(node, user))
        self.reads += 1
        shown = set(profile.features.get("seen") or ())
        views = profile.features.get("views") or 0
        whom = f"u-{user}"
        self.require(shown <= person.sent.keys(), f"{whom} is shown nothing that was not sent")
        # A withdrawal takes the whole tile of a count: what came after it in the same tile too.
        exact = views == len(shown) or (person.withdrawing_at_ms >= 0 and views < len(shown))
        self.require(
            exact, f"an event of {whom} counts once, and each counts: {views} for {len(shown)}"
        )
        early = {product for product in shown if person.sent[product] < withdrawn_at_ms}
        self.require(not early, f"what {whom} has withdrawn is not shown")
        if found.live or settled:
            wanted = {
                product for product, at_ms in known.items()
                if (settled or at_ms < min(found.as_of_ms, asked_at_ms))
                and person.sent[product] > person.withdrawing_at_ms
            }  # fmt: skip
            self.require(
                wanted <= shown, f"a live answer for {whom} has what was acknowledged before"
            )

    async def _asker(self, node: Node) -> None:
        while True:
            await asyncio.sleep(self.dice.random() * 1.5)
            await self._ask(node, self.dice.randrange(USERS), f"s-{self.dice.randrange(2)}")

    async def _ask(self, node: Node, user: int, send: str) -> None:
        person, who, whom = self.people[user], _who(node, user), f"u-{user}"
        unsubscribed = person.unsubscribed
        outcome = await node.serving.decide(CAMPAIGN, who, send)
        answer, decision = outcome.answer, outcome.decision
        self.require(bool(answer.slots), "there is always content")
        if unsubscribed and outcome.profile is not None:
            refused = any(entry.denied for entry in outcome.suppressions.values())
            self.require(refused, f"the unsubscribe of {whom} is seen once it was answered")
        if decision is None or not answer.decision_id:
            return
        self.decided += 1
        self.require(decision.recipient == who.leaf, "an answer is about whom it was asked")
        content = msgspec.json.encode([answer.slots, answer.served])
        first = person.asked.setdefault(send, (answer.decision_id, content))
        self.require(
            first == (answer.decision_id, content), f"{whom} is answered the same when asked again"
        )

    # -- the end

    def _check_disks(self) -> None:
        log, store = self.disks.log, self.disks.store
        step = Step(self.project.plan, self.project.step_rules())
        report = audit(log, store, step, int(store.get_meta(LIVE_EPOCH) or 0))
        self.require(report.sound, "; ".join(report.problems))
        self.require(report.in_flight == 0, "after a clean end everything is written")
        records = [decode_record(entry.value) for entry in log.read(0, 0, 1 << 30)]
        recorded = {one.message_id for one in records if one.name == DECIDED}
        answered = {one[0] for person in self.people for one in person.asked.values()}
        self.require(answered <= recorded, "every decision that was answered is in the log")
        kept = {letter.message_id for letter in log.dead_letters(pending_only=False)}
        self.require(self.bad <= kept, "every event that was refused is among the dead letters")

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append((self.loop.time(), what))

    def require(self, holds: bool, promise: str) -> None:
        """Check a promise.

        Raises:
            Broken: It does not hold.
        """
        if not holds:
            lines = [f"{at_s:9.3f} s  {what}" for at_s, what in self.trace[-TRACE_MAX:]]
            raise Broken(f"seed={self.seed}: not so: {promise}\n" + "\n".join(lines))


def shortest(
    project: Project, changed: Project, planted: Planted = Planted.NONE, *, seeds: Sequence[int]
) -> str:
    """Return the shortest history that breaks a promise, as its message with its trace; empty for none.

    Histories are tried from short to long, all seeds of a length before the next length.
    """
    for lasts_s in (0.5, 1.0, 2.0, 3.0, 4.0, HISTORY_S):
        found: list[str] = []
        for seed in seeds:
            try:
                EngineSimulation(seed, project, changed, planted, lasts_s).run()
            except Broken as broken:
                found.append(f"lasts_s={lasts_s} {broken}")
        if found:
            return min(found, key=lambda text: (text.count("\n"), len(text)))
    return ""


class _Following:
    """The clock of the process that runs now: disks outlive processes, and their loops."""

    def __init__(self, simulation: EngineSimulation) -> None:
        self._simulation = simulation

    def now_ms(self) -> int:
        return self._simulation.clock.now_ms()

    def monotonic_ms(self) -> int:
        return self._simulation.clock.monotonic_ms()


def _who(node: Node, user: int) -> Who:
    return Who(node.collector.make_leaf("user_id", f"u-{user}"), "user_id")
