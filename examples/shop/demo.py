"""`make demo`: a real engine, 12,000 events over HTTP, a campaign, and the figures; ends by itself.

Everything it prints was measured in this run. If a promise does not hold it says which, and ends
with an error.
"""

from __future__ import annotations

import asyncio
import csv
import email
import email.policy
import fcntl
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from examples.shop.pictures import with_pictures
from examples.shop.synthetic import Product, Shoppers, read_catalogue
from examples.shop.traffic import (
    ADMIN,
    WRITE_KEYS,
    Intake,
    Late,
    Probe,
    Visitor,
    percentile,
    post,
    probe,
    send_all,
    sign_in,
)
from penstock.adapters.clock import SystemClock

SEED = 7
CAMPAIGN = "winback"
PEOPLE = 400
EVENTS_MIN = 12_000
EMAILS_MIN = 200
PROBES = 120
EVENTS_PER_S = 2_000
"""The pace of the load that is on while freshness is measured."""
FRESH_P99_MS = 500.0
"""What must hold on any machine. The figure of this machine is printed."""
START_WITHIN_S = 20.0

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "run" / "demo"
"""Where it all happens, unless the first argument names another folder."""

console = Console(highlight=False)


class Promise(NamedTuple):
    """Something that has to be true at the end."""

    holds: bool
    what: str


class Story(NamedTuple):
    """What the demo came to."""

    folder: Path
    shoppers: Shoppers
    intake: Intake
    probes: list[Probe]
    law: dict[str, Any]
    send: dict[str, Any]
    letters: dict[str, Path]
    """By address."""
    emails: list[Seen]
    """What each watched visitor's email shows."""


class Seen(NamedTuple):
    """What a watched visitor got: `shown`, or why it was something else on purpose."""

    probe: Probe
    outcome: str
    """`shown`, `held out`, `drawn by lot`, or `wrong`."""


def main() -> None:
    """Run the demo; the exit code is 1 if a promise does not hold."""
    start = time.perf_counter()
    console.print("\n[bold]Penstock[/bold]  a click, and the next email knows it\n")
    folder = Path(sys.argv[1]).resolve() if sys.argv[1:] else FOLDER
    with alone(folder):
        prepare(folder)
        story = tell(folder)
    promises = [*promised(story)]
    tell_promises(promises, folder, time.perf_counter() - start)
    sys.exit(0 if all(promise.holds for promise in promises) else 1)


def tell(folder: Path) -> Story:
    """Run everything and tell it as it comes."""
    with engine(folder) as url:
        step(f"engine up at {url}, SQLite files in {shown(folder / 'data')}")
        shoppers = Shoppers(SEED, SystemClock().now_ms(), people=PEOPLE)
        load(folder, shoppers)
        story = asyncio.run(play(url, folder, shoppers))
        tell_freshness(story)
        tell_send(story)
        hero = next((seen.probe for seen in story.emails if seen.outcome == "shown"), None)
        if hero is not None:
            tell_one(story, hero)
    step("engine stopped; `penstock doctor` reads every byte back:")
    for finding in command(folder, "doctor"):
        console.print(f"     [dim]{finding['what']}[/dim]", soft_wrap=True)
    return story


# -- the parts


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, so that two demos do not run over each other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(
                f"[red]another demo is running in {folder}[/red]; wait, or name another folder"
            )
            sys.exit(2)
        yield


def prepare(folder: Path) -> None:
    """Copy the example's project into a folder of its own, without data of an earlier run."""
    if folder.exists() and not (folder / "engine.log").exists():
        console.print(
            f"[red]{folder} is no folder of an earlier demo[/red]; name one that does not exist"
        )
        sys.exit(2)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("__pycache__", "data", "outbox"))


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Run `penstock up` in a process of its own, and stop it as an operator would.

    Yields:
        Its URL, once it says that it is ready.
    """
    with (folder / "engine.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [penstock(), "up", str(folder), "--port", "0"], stdout=log, stderr=log
        )
    try:
        yield wait_until_ready(process, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=30) != 0:
            console.print((folder / "engine.log").read_text(encoding="utf-8"), markup=False)
            console.print(f"[red]the engine ended with exit code {process.returncode}[/red]")
            sys.exit(1)


def wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Return the engine's URL once it is ready."""
    deadline = time.perf_counter() + START_WITHIN_S
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            url = json.loads((folder / "data" / "up.json").read_text(encoding="utf-8"))["url"]
            if httpx.get(f"{url}/ready", timeout=2).status_code == httpx.codes.OK:
                return url
        except (OSError, ValueError, httpx.HTTPError):
            pass
        time.sleep(0.05)
    console.print((folder / "engine.log").read_text(encoding="utf-8"), markup=False)
    console.print("[red]the engine did not come up[/red]")
    sys.exit(1)


def penstock() -> str:
    """Return the path of the command, beside the interpreter that runs this."""
    return str(Path(sys.executable).parent / "penstock")


def command(folder: Path, *words: str) -> Any:
    """Run a `penstock` command on the demo's project and return its JSON."""
    done = subprocess.run(
        [penstock(), *words, "--project", str(folder), "--json"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        console.print(f"penstock {' '.join(words)}\n{done.stderr}", style="red", markup=False)
        sys.exit(1)
    return json.loads(done.stdout)


def load(folder: Path, shoppers: Shoppers) -> None:
    """Load what the CRM knows of people, with the command line; `up` has loaded the catalogue."""
    people = folder / "people.csv"
    rows = shoppers.crm_rows()
    with people.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    crm = command(folder, "load", str(people), "--as", "people", "--job", "crm")
    step(
        f"{len(read_catalogue())} products loaded by `penstock up`, {crm['kept']} people of the CRM by `penstock load`"
    )


async def play(url: str, folder: Path, shoppers: Shoppers) -> Story:
    """Send everything, watch visitors meanwhile, check the books, and send the campaign."""
    events = shoppers.events()
    watched = visitors(shoppers)
    intake, probes = await traffic(url, events, watched)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        status = await http.get("/v1/admin/status", headers=ADMIN)
        status.raise_for_status()
    send = await asyncio.to_thread(command, folder, "send", CAMPAIGN)
    letters = {letter["To"]: path for path in sorted((folder / "outbox").glob("*.eml"))
               for letter in [read_letter(path)]}  # fmt: skip
    return Story(
        folder,
        shoppers,
        intake,
        probes,
        status.json(),
        send,
        letters,
        await look(url, probes, letters),
    )


async def look(url: str, probes: Sequence[Probe], letters: dict[str, Path]) -> list[Seen]:
    """Return what each visitor's email shows, and if it is something else, whether on purpose."""
    found: list[Seen] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for one in probes:
            path = letters.get(one.visitor.email)
            html = html_of(read_letter(path)) if path is not None else ""
            outcome = "shown" if html_shows(html, one.visitor.product) else await reason(http, one)
            found.append(Seen(one, outcome))
    return found


async def reason(http: httpx.AsyncClient, one: Probe) -> str:
    """Return why a visitor's email shows something else than what they viewed."""
    asked = {"campaign": CAMPAIGN, "slot": "hero", "user_id": one.visitor.user}
    why = (await http.post("/v1/admin/explain", json=asked, headers=ADMIN)).json()["explanation"]
    if why["served"] == "holdout":
        return "held out"
    return "drawn by lot" if why["slots"][0]["explored"] else "wrong"


def html_shows(html: str, product: Product) -> bool:
    """Return whether the big picture of an email is a product's."""
    alts = re.findall(r'<img[^>]* alt="([^"]*)" width="536"', html)
    return [product.title] == [unescape(alt) for alt in alts]


def visitors(shoppers: Shoppers) -> list[Visitor]:
    """Return the shoppers who are watched, each with a product that can be shown."""
    dice = random.Random(SEED)
    with (HERE / "catalogue.csv").open(newline="", encoding="utf-8") as lines:
        hidden = {row["item_id"] for row in csv.DictReader(lines)
                  if row["stock"] == "0" or row["available"] != "true" or row["starts_at"] or row["ends_at"]}  # fmt: skip
    products = [product for product in read_catalogue() if product.product_id not in hidden]
    return [
        Visitor(f"v-{number:03d}", f"phone-{number:03d}", f"{person.name.lower()}.v{number}@example.com",
                person.name, dice.choice(products))
        for number, person in enumerate(shoppers.people[:PROBES])
    ]  # fmt: skip


async def traffic(
    url: str, events: Sequence[Any], watched: list[Visitor]
) -> tuple[Intake, list[Probe]]:
    """Send the load at its pace, and one visitor after another while it is on."""
    clock = SystemClock()
    with Progress(TextColumn("   sending"), BarColumn(), MofNCompleteColumn(), console=console,
                  transient=True) as bar:  # fmt: skip
        task = bar.add_task("", total=len(events))
        sending = asyncio.create_task(
            send_all(url, events, events_per_s=EVENTS_PER_S,
                     progress=lambda done: bar.update(task, completed=done))
        )  # fmt: skip
        probes: list[Probe] = []
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            arrivals = [sign_in(visitor, clock.now_ms()).body for visitor in watched]
            body = {"writeKey": WRITE_KEYS["backend"], "batch": arrivals}
            await post(http, "/v1/batch", json.dumps(body).encode())
            pause_s = len(events) / EVENTS_PER_S / len(watched)
            for number, visitor in enumerate(watched):
                await asyncio.sleep(pause_s * random.Random(number).random())
                try:
                    probes.append(await probe(http, CAMPAIGN, visitor, clock.now_ms()))
                except Late as error:
                    console.print(f"[red]{error}[/red]")
        return await sending, probes


def read_letter(path: Path) -> EmailMessage:
    """Return an email of a file."""
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


# -- what is told


def step(what: str) -> None:
    """Print one thing that is done."""
    console.print(f" [green]✓[/green] {what}", soft_wrap=True)


def shown(path: Path) -> str:
    """Return a path as a reader at the project's root would write it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def tell_freshness(story: Story) -> None:
    """Print the load and how fresh answers were during it."""
    intake = story.intake
    pace = intake.events / intake.elapsed_s
    step(f"{intake.events:,} events accepted over HTTP in {intake.batches} batches, {intake.elapsed_s:.1f} s "
         f"({pace:,.0f}/s, held back to {EVENTS_PER_S:,}/s); {intake.refused} broken ones kept as dead letters")  # fmt: skip
    if not story.probes:
        return
    table = Table(
        "under that load, ms", "p50", "p99", "max", box=None, padding=(0, 3), header_style="dim"
    )
    rows = [
        ("viewed → accepted, on disk", [one.accepted_ms for one in story.probes]),
        ("accepted → shown by an answer", [one.served_ms for one in story.probes]),
    ]
    for name, values in rows:
        table.add_row(
            name,
            f"{percentile(values, 0.5):.1f}",
            f"{percentile(values, 0.99):.1f}",
            f"{max(values):.1f}",
        )
    console.print(
        f"\n   [bold]Freshness[/bold], {len(story.probes)} visitors who each view a product\n"
    )
    console.print(table)
    console.print()


def tell_send(story: Story) -> None:
    """Print what the campaign came to, and the conservation law."""
    outcomes = story.send["outcomes"]
    skipped = ", ".join(f"{number} {name.partition(':')[2]}" for name, number in sorted(outcomes.items())
                        if name.startswith("skipped:"))  # fmt: skip
    step(f"`penstock send {CAMPAIGN}`: {outcomes.get('accepted', 0)} emails in {shown(story.folder / 'outbox')}; "
         f"left out: {skipped or 'nobody'}")  # fmt: skip
    law = story.law
    console.print(
        f" {'[green]✓[/green] conserved' if law['conserved'] else '[red]✗ NOT conserved[/red]'}:"
        f" accepted {law['accepted']:,} = applied {law['applied']:,} + deduplicated {law['deduplicated']:,}"
        f" + dead-lettered {law['dead_lettered']:,} + policy-dropped {law['policy_dropped']:,}"
        f" + in flight {law['in_flight']:,}", soft_wrap=True)  # fmt: skip


def tell_one(story: Story, one: Probe) -> None:
    """Print one email's path and why its content was chosen, and write it as a page."""
    visitor, path = one.visitor, story.letters[one.visitor.email]
    letter = read_letter(path)
    page = story.folder / "email.html"
    page.write_text(with_pictures(html_of(letter), read_catalogue()), encoding="utf-8")
    lines = Text()
    for what, fact in (
        ("viewed", f"{visitor.name}, on a phone, looks at “{visitor.product.title}”"),
        ("accepted", f"{one.accepted_ms:.1f} ms later: 200, the event is on disk"),
        ("shown", f"{one.served_ms:.1f} ms after that: answer {one.asked} to those who ask has it"),
        ("sent", f"“{letter['Subject']}” to {letter['To']}"),
        ("file", shown(path)),
        ("page", f"{shown(page)}  (the same HTML with pictures drawn in; open it in a browser)"),
    ):
        lines.append(f"{what:>9}  ", style="dim")
        lines.append(f"{fact}\n")
    lines.rstrip()
    console.print()
    console.print(Panel(lines, title="one email's path", title_align="left", border_style="dim"))
    why = command(
        story.folder, "explain", f"user_id:{visitor.user}", "--campaign", CAMPAIGN, "--slot", "hero"
    )
    story_lines = Text("\n".join(line for line in why["lines"]), overflow="ellipsis", no_wrap=True)
    title = f"penstock explain user_id:{visitor.user} --campaign {CAMPAIGN} --slot hero"
    console.print(Panel(story_lines, title=title, title_align="left", border_style="dim"))


def html_of(letter: EmailMessage) -> str:
    """Return the HTML part of an email."""
    part = letter.get_body(("html",))
    assert part is not None, "every email has an HTML part"
    return part.get_content()


# -- what must be true


def promised(story: Story) -> Iterator[Promise]:
    """Yield what the demo promises, and whether it held."""
    truth = story.shoppers.truth
    sent = story.send["outcomes"].get("accepted", 0)
    rows = len(read_catalogue()) + len(story.shoppers.crm_rows())
    expected = len(truth.distinct) + truth.duplicates + truth.malformed + rows + 2 * PROBES
    law = story.law
    yield Promise(
        story.intake.events >= EVENTS_MIN,
        f"{EVENTS_MIN:,} events and more went through the collector",
    )
    yield Promise(law["conserved"], "no event is lost and none counts twice, by what is on disk")
    yield Promise(
        (law["accepted"], law["deduplicated"], law["dead_lettered"], law["in_flight"])
        == (expected, truth.duplicates, truth.malformed, 0),
        f"the books agree with the generator's: {expected:,} kept, {truth.duplicates} copies, "
        f"{truth.malformed} broken",
    )  # fmt: skip
    fresh = (
        len(story.probes) == PROBES
        and percentile([one.served_ms for one in story.probes], 0.99) < FRESH_P99_MS
    )
    yield Promise(
        fresh,
        f"every one of {PROBES} views was shown, p99 below {FRESH_P99_MS:.0f} ms after it was accepted",
    )
    yield Promise(
        sent >= EMAILS_MIN and sent == len(story.letters),
        f"{EMAILS_MIN} emails and more, one a person",
    )
    refusing = {truth.emails[user] for user in truth.denied | truth.unsubscribed}
    yield Promise(not refusing & set(story.letters),
                  f"none of the {len(refusing)} people who refused or unsubscribed got one")  # fmt: skip
    outcomes = Counter(seen.outcome for seen in story.emails)
    yield Promise(
        outcomes["shown"] > PROBES / 2 and not outcomes["wrong"] and len(story.emails) == PROBES,
        f"{outcomes['shown']} of {PROBES} visitors got an email that shows what they had just viewed; "
        f"{outcomes['held out']} are held out and {outcomes['drawn by lot']} drawn by lot, on purpose",
    )  # fmt: skip


def tell_promises(promises: Sequence[Promise], folder: Path, elapsed_s: float) -> None:
    """Print which promises held, and what to do next."""
    console.print()
    for promise in promises:
        mark = "[green]✓[/green]" if promise.holds else "[red]✗ BROKEN:[/red]"
        console.print(f" {mark} {promise.what}", soft_wrap=True)
    console.print(f"\n   {elapsed_s:.0f} s. Everything is left in {shown(folder)}.")
    console.print(
        "   Next: [bold]make up[/bold] keeps one running; docs/tutorial/README.md makes your own.\n"
    )


if __name__ == "__main__":
    main()
