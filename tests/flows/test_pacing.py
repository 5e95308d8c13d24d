"""Pacing: quiet hours defer, caps hold across campaigns, threads and processes, and lapse."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from test_send import PEOPLE, Mailing, Play, mailing, populate
from tests_serving import Shop, identify

from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.esp.memory import MemoryEsp
from penstock.core.decision.pace import Cap, zone_of
from penstock.core.errors import Unavailable
from penstock.core.time import HOUR_MS
from penstock.flows.pacing import RESERVED_MS, Pacing

ONE = Pacing({"marketing": Cap("marketing", 1, 7)})


def paced(body: Any, pacing: Pacing, esp: Any = None, **changes: Any) -> Any:
    """Return a story over a shop whose campaign was changed."""

    async def story(shop: Shop) -> Any:
        await populate(shop)
        campaigns = shop.node.project.campaigns
        campaigns["spring"] = msgspec.structs.replace(campaigns["spring"], **changes)
        return await body(mailing(shop, esp, pacing=pacing))

    return story


def test_a_cap_holds_over_sends_and_ends_with_its_days(play: Play) -> None:
    async def body(shop: Mailing) -> list[dict[str, int]]:
        first = [await shop.send("s1"), await shop.send("s2"), await shop.send("s1")]
        shop.shop.clock.advance(days=7)
        return [*first, await shop.send("s2")]

    everybody = len(PEOPLE)
    assert [
        {"accepted": everybody}, {"deferred:cap": everybody}, {"already": everybody}, {"accepted": everybody},
    ] == play(paced(body, ONE, cap="marketing"))  # fmt: skip


def test_a_dry_run_foresees_caps_and_quiet_hours_and_takes_no_place(play: Play) -> None:
    async def foreseen(shop: Mailing, send: str) -> list[str]:
        project = shop.shop.node.project
        told = shop.campaigning.foresee(
            project.audiences["viewers"], project.campaigns["spring"], send
        )
        return [outcome async for _, outcome in told]

    async def body(shop: Mailing) -> list[Any]:
        before = [await foreseen(shop, "s1"), await foreseen(shop, "s1")]
        sent = await shop.send("s1")
        # The same send repeats nobody's email: its own place is not counted against it.
        return [*before, sent, await foreseen(shop, "s2"), await foreseen(shop, "s1")]

    everybody = ["member"] * len(PEOPLE)
    capped = ["deferred:cap"] * len(PEOPLE)
    assert [everybody, everybody, {"accepted": len(PEOPLE)}, capped, everybody] == play(
        paced(body, ONE, cap="marketing")
    )

    async def night(shop: Mailing) -> list[str]:
        return await foreseen(shop, "s1")

    quiet = ["deferred:quiet_hours"] * len(PEOPLE)
    assert quiet == play(paced(night, ONE, quiet_hours="00:00-23:59"))


def test_a_campaign_without_a_cap_is_not_counted(play: Play) -> None:
    async def body(shop: Mailing) -> list[dict[str, int]]:
        return [await shop.send("s1"), await shop.send("s2")]

    assert [{"accepted": len(PEOPLE)}] * 2 == play(paced(body, ONE, cap="none"))


def test_what_was_not_sent_gives_its_place_back(play: Play) -> None:
    class Away(MemoryEsp):
        away = True

        def send(self, message: Any, *, sender: str, recipient: str) -> Any:
            if self.away:
                raise Unavailable("E406", "the ESP is away", fix="wait")
            return super().send(message, sender=sender, recipient=recipient)

    esp = Away()

    async def body(shop: Mailing) -> list[dict[str, int]]:
        refused = await shop.send("s1")
        esp.away = False
        return [refused, await shop.send("s2"), await shop.send("s1")]

    assert [{"refused:E406": 3}, {"accepted": 3}, {"deferred:cap": 3}] == play(
        paced(body, ONE, esp, cap="marketing")
    )


def test_an_email_in_doubt_counts_as_sent(play: Play) -> None:
    class Lost(MemoryEsp):
        def send(self, message: Any, *, sender: str, recipient: str) -> Any:
            raise OSError

    async def body(shop: Mailing) -> list[dict[str, int]]:
        first = await shop.send("s1")
        shop.shop.clock.advance(hours=2)
        return [first, await shop.send("s2")]

    assert [{"in_doubt": 3}, {"deferred:cap": 3}] == play(paced(body, ONE, Lost(), cap="marketing"))


def test_quiet_hours_defer_and_the_same_send_goes_on_in_the_morning(play: Play) -> None:
    async def body(shop: Mailing) -> list[Any]:
        # Eleven in the evening in London; in Tokyo it is eight in the morning.
        clock = shop.shop.clock
        clock.advance(ms=47 * HOUR_MS - clock.now_ms() % (24 * HOUR_MS))
        await shop.shop.send(identify("u2", "a1", PEOPLE[1][1], 2, timezone="Asia/Tokyo"))
        await shop.shop.send(identify("u3", "a2", PEOPLE[2][1], 2, timezone="Nowhere/At all"))
        evening = await shop.send("s1")
        early = shop.recipients()
        clock.advance(hours=10)
        return [evening, early, await shop.send("s1"), shop.recipients()]

    zone = zone_of("Europe/London")
    assert zone is not None
    evening, early, morning, all_of_them = play(
        paced(body, Pacing({}, zone), quiet_hours="21:00-08:00")
    )
    assert {"accepted": 1, "deferred:quiet_hours": 2} == evening
    assert [PEOPLE[1][1]] == early
    assert {"accepted": 2, "already": 1} == morning
    assert sorted(email for _, email in PEOPLE) == all_of_them


RESERVING = """
import sys
from pathlib import Path
from penstock.adapters.decisions.sqlite import SqliteDecisions
store = SqliteDecisions(Path(sys.argv[1]))
print(sum(store.reserve(b"r" * 16, "email:marketing", limit=5, token=f"{sys.argv[2]}-{n}", until_ms=10, now_ms=1)
          for n in range(8)))
store.close()
"""


def test_concurrent_senders_cannot_exceed_a_cap(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    SqliteDecisions(path).close()
    processes = [
        subprocess.Popen([sys.executable, "-c", RESERVING, str(path), str(number)],
                         stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]  # fmt: skip
    assert 5 == sum(int(process.communicate(timeout=50)[0]) for process in processes)

    store = SqliteDecisions(path)
    pacing = Pacing({"c": Cap("c", 3, 1)})
    campaign: Any = type("Campaign", (), {"cap": "c", "channel": "email"})
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(
            lambda n: pacing.reserve(store, campaign, b"q" * 16, f"t{n}", 1), range(20)  # type: ignore[arg-type]
        ))  # fmt: skip
    assert 3 == sum(got)
    # A reservation of which nothing more is heard lapses.
    late_ms = 1 + RESERVED_MS
    assert pacing.reserve(store, campaign, b"q" * 16, "later", late_ms)  # type: ignore[arg-type]
    store.close()
