"""What the senders know, whoever is killed: every event, when it was acknowledged, and every answer that was served."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from segment.analytics.client import Client

SERVER_KEY, READ_KEY = "demo-server-key", "demo-read-key"
USERS = 120
ANSWER_S_MAX = 3.0
"""A request that is not answered by then counts as failed, and is made again."""
PAUSE_S = 0.02
"""Between the batches of a client: the machine has more to do than to take events."""
SDK_ROUND = 12
LIVE_MS = 1_000
"""How old what is served as `live` may be, by docs/concepts/guarantees.md."""
CAMPAIGN = "winback"
VIEWED, ORDERED, UNSUBSCRIBED = "Product Viewed", "Order Completed", "Unsubscribed"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Sent:
    """One event of the senders."""

    user: str
    name: str
    first_ms: int
    """Before it was sent for the first time."""
    acked_ms: int = 0
    """After it was acknowledged; 0 for not yet, or not known to have been."""


class Told(NamedTuple):
    """What an answer said of a person, and of how fresh it is."""

    user: str
    asked_ms: int
    answered_ms: int
    served: str
    reason: str
    as_of_ms: int
    """Up to when it says that it reflects the log; 0 if it says nothing."""
    age_ms: int
    views: int


@dataclass
class Outage:
    """The longest time for which one client was refused or not answered, attempt after attempt."""

    longest_s: float = 0.0
    refused: int = 0
    _since_s: float | None = None

    def failed(self, began_s: float) -> None:
        self.refused += 1
        self._since_s = began_s if self._since_s is None else self._since_s

    def answered(self) -> None:
        if self._since_s is not None:
            self.longest_s = max(self.longest_s, time.monotonic() - self._since_s)
            self._since_s = None


@dataclass
class Ledger:
    """The senders' own record. Threads of the load write to it; who judges reads it when they have ended."""

    port: int
    sent: dict[str, Sent] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    """User -> what was answered as decided for them."""
    given_up: list[object] = field(default_factory=list)
    """What the SDK did not deliver."""
    wrong: list[str] = field(default_factory=list)
    """Answers that no client may get."""
    taking: list[Outage] = field(default_factory=list)
    serving: list[Outage] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    stop: threading.Event = field(default_factory=threading.Event)
    abandon: threading.Event = field(default_factory=threading.Event)
    """Set if the test has failed: nobody will answer any more."""
    acked: int = 0

    def note(self, message_id: str, user: str, name: str = VIEWED) -> None:
        self.sent[message_id] = Sent(user, name, now_ms())

    def acknowledge(self, message_ids: list[str]) -> None:
        at_ms = now_ms()
        with self.changed:
            for one in message_ids:
                self.sent[one].acked_ms = at_ms
            self.acked += len(message_ids)
            self.changed.notify_all()

    def wait_for(self, more: int, seconds: float) -> bool:
        """Wait until so many more are acknowledged, at most so long; return whether they were."""
        with self.changed:
            wanted = self.acked + more
            return self.changed.wait_for(lambda: self.acked >= wanted, seconds)

    def decide(self, caller: "Caller", user: str) -> None:
        """Have something decided, and keep what was answered, if it was."""
        status, body = caller.ask("GET", f"/v1/decide/{CAMPAIGN}?user_id={user}&send=s1")
        if status not in (0, 200):
            self.wrong.append(f"a decision was answered {status}")
        if status == 200:
            answer = json.loads(body)
            if answer["decision_id"]:
                self.decided[user] = decision_of(answer)

    def counted(self, name: str = VIEWED) -> Counter[str]:
        """Return by person how many events of a name were sent."""
        return Counter(one.user for one in [*self.sent.values()] if one.name == name)

    def stale_lies(self) -> list[tuple[int, str]]:
        """Return when and what answers claimed that did not hold: an acknowledged event was missing, or one too many there."""
        of_user: dict[str, list[Sent]] = {}
        for one in list(self.sent.values()):
            if one.name == VIEWED:
                of_user.setdefault(one.user, []).append(one)
        found = []
        for told in self.told:
            if not told.as_of_ms:
                continue
            events = of_user.get(told.user, [])
            least = sum(0 < one.acked_ms <= told.as_of_ms for one in events)
            most = sum(one.first_ms <= told.answered_ms for one in events)
            if not least <= told.views <= most:
                what = (
                    f"{told.user}: {told.views} views served {told.served} {told.reason} as of {told.as_of_ms} "
                    f"(asked {told.asked_ms - told.as_of_ms} ms later, age {told.age_ms} ms), "
                    f"and {least} were acknowledged by then, {most} sent"
                )
                found.append((told.answered_ms, what))
            age_ms = told.asked_ms - told.as_of_ms
            if told.served == "live" and age_ms > LIVE_MS:
                found.append(
                    (
                        told.answered_ms,
                        f"{told.user}: served live, and {age_ms} ms old when it was asked for",
                    )
                )
            if not age_ms - 1 <= told.age_ms <= told.answered_ms - told.as_of_ms + 1:
                found.append(
                    (
                        told.answered_ms,
                        f"{told.user}: an age of {told.age_ms} ms, and it was {age_ms} ms",
                    )
                )
        return found


def event_of(ledger: Ledger, dice: random.Random, message_id: str) -> dict[str, Any]:
    """Return an event as a server sends it: views most of all, some orders, few unsubscribes."""
    user = f"u{int(USERS * dice.random() ** 2)}"
    drawn = dice.random()
    name = ORDERED if drawn < 0.05 else UNSUBSCRIBED if drawn < 0.055 else VIEWED
    ledger.note(message_id, user, name)
    product = f"p-{dice.randrange(101, 116)}"
    properties: dict[str, Any] = {"product_id": product, "category": "Garden"}
    if name == ORDERED:
        properties = {"order_id": message_id, "total": 19.99, "currency": "GBP",
                      "products": [{"product_id": product, "quantity": 1, "price": 19.99}]}  # fmt: skip
    if name == UNSUBSCRIBED:
        properties = {"topic": "offers"}
    linked = {"anonymousId": f"{user}-a{dice.randrange(6)}"} if dice.random() < 0.2 else {}
    return {
        "type": "track", "event": name, "messageId": message_id, "userId": user, **linked, "properties": properties,
    }  # fmt: skip


class Caller:
    """One client with one connection, which it makes anew after every failure."""

    def __init__(self, port: int, seconds: float = ANSWER_S_MAX) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Return status and body; 0 if there was no answer."""
        headers = {"Authorization": f"Bearer {READ_KEY}", "Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, b""

    def post(self, events: list[dict[str, Any]]) -> int:
        return self.ask("POST", "/v1/batch", json.dumps({"writeKey": SERVER_KEY, "batch": events}))[
            0
        ]

    def close(self) -> None:
        self._connection.close()


def asked(port: int, method: str, path: str, seconds: float = ANSWER_S_MAX) -> tuple[int, bytes]:
    """Ask once, on a connection of its own."""
    with closing(Caller(port, seconds)) as caller:
        return caller.ask(method, path)


def raw_load(ledger: Ledger, caller: Caller, number: int, seed: int) -> None:
    """Post batches until told to stop; what was not answered 200 is posted again as it is."""
    dice = random.Random(seed * 100 + number)
    outage, batches = Outage(), 0
    ledger.taking.append(outage)
    while not ledger.stop.wait(PAUSE_S):
        names = [f"raw-{number}-{batches}-{place}" for place in range(dice.randint(1, 9))]
        batches += 1
        events = [event_of(ledger, dice, one) for one in names]
        while True:
            began_s = time.monotonic()
            status = caller.post(events)
            if status == 200:
                break
            if status not in (0, 429, 503):
                ledger.wrong.append(f"a batch was answered {status}")
                return
            outage.failed(began_s)
            if ledger.abandon.wait(PAUSE_S):
                return
        outage.answered()
        ledger.acknowledge(names)


def sdk_load(ledger: Ledger, client: Client, seed: int) -> None:
    """Track with Segment's SDK, in rounds that end when its queue is empty."""
    dice, rounds = random.Random(seed * 100 + 50), 0
    while not ledger.stop.wait(5 * PAUSE_S):
        names = [f"sdk-{rounds}-{place}" for place in range(SDK_ROUND)]
        rounds += 1
        for one in names:
            user = f"u{dice.randrange(USERS)}"
            ledger.note(one, user)
            properties = {"product_id": f"p-{dice.randrange(101, 116)}", "category": "Lamps"}
            taken, _ = client.track(user, VIEWED, properties, message_id=one)
            assert taken, "the queue of the SDK is full"
        client.flush()
        if ledger.abandon.is_set():
            return
        if not ledger.given_up:
            ledger.acknowledge(names)


def probe(ledger: Ledger, caller: Caller, seed: int, checked: Callable[[], bool]) -> None:
    """Read profiles, and have something decided now and then; keep what was told.

    Args:
        ledger: Where it is kept.
        caller: Asks.
        seed: Whom it asks for.
        checked: Whether clocks are right: of answers while one is set wrong nothing is kept.
    """
    dice, outage = random.Random(seed * 100 + 70), Outage()
    ledger.serving.append(outage)
    while not ledger.stop.wait(PAUSE_S):
        user, right = f"u{dice.randrange(USERS)}", checked()
        began_s, asked_ms = time.monotonic(), now_ms()
        status, body = caller.ask("GET", f"/v1/profiles/user_id:{user}")
        if status != 200:
            outage.failed(began_s)
            if status not in (0, 503):
                ledger.wrong.append(f"a profile was answered {status}: {body[:200]!r}")
            continue
        outage.answered()
        if right and checked():
            ledger.told.append(told_of(user, asked_ms, json.loads(body)))
        if dice.random() < 0.1 and user not in ledger.decided:
            ledger.decide(caller, user)


def told_of(user: str, asked_ms: int, view: dict[str, Any]) -> Told:
    """Return what a profile says."""
    views = view["features"].get("views_7d", 0)
    said = view["profile_as_of"]
    as_of_ms = round(datetime.fromisoformat(said).timestamp() * 1000) if said else 0
    return Told(
        user, asked_ms, now_ms(), view["served"], view["reason"], as_of_ms, view["age_ms"], views
    )


def decision_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what stands of a decision, however often it is asked for."""
    shown = [(name, one["items"]) for name, one in answer["slots"].items()]
    return {"decision": answer["decision_id"], "shown": str(shown)}


def asked_again(ledger: Ledger) -> list[str]:
    """Ask for every decision once more; return whose is another one now."""
    found = []
    for user, before in ledger.decided.items():
        status, body = asked(
            ledger.port, "GET", f"/v1/decide/{CAMPAIGN}?user_id={user}&send=s1", 10
        )
        now = decision_of(json.loads(body)) if status == 200 else {}
        if now != before:
            found.append(f"{user}: {before} became {now}")
    return found


@contextmanager
def load(ledger: Ledger, seed: int, checked: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Two raw clients, Segment's SDK and a reader, until the block ends; then until all is acknowledged."""
    client = Client(
        SERVER_KEY, host=f"http://127.0.0.1:{ledger.port}", upload_size=20, upload_interval=0.05, max_retries=1_000,
        timeout=ANSWER_S_MAX, on_error=lambda error, batch: ledger.given_up.append((error, len(batch))),
    )  # fmt: skip
    callers = [Caller(ledger.port) for _ in range(3)]
    works: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (raw_load, (ledger, callers[0], 0, seed)), (raw_load, (ledger, callers[1], 1, seed)),
        (sdk_load, (ledger, client, seed)), (probe, (ledger, callers[2], seed, checked)),
    ]  # fmt: skip
    threads = [threading.Thread(target=work, args=given, daemon=True) for work, given in works]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        ledger.abandon.set()
        raise
    finally:
        ledger.stop.set()
        if not ledger.abandon.is_set():
            for thread in threads:
                thread.join(90)  # the SDK waits up to a minute between two attempts
            with suppress(Exception):
                client.shutdown()
        for caller in callers:
            caller.close()
    assert not any(thread.is_alive() for thread in threads), "a sender is still not answered"
    assert [] == ledger.given_up
    assert [] == ledger.wrong
