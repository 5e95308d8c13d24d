"""`make demo` as a whole: a real engine in a process of its own, and every promise it makes."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples.shop.demo import PROBES, Seen, Story, promised
from examples.shop.synthetic import Shoppers, read_catalogue
from examples.shop.traffic import Intake, Probe, Visitor

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_demo_keeps_its_promises_and_ends_by_itself(tmp_path):
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "examples.shop.demo", str(folder)], cwd=ROOT, capture_output=True,
        text=True, timeout=59, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert len(list((folder / "outbox").glob("*.eml"))) >= 200
    assert not (folder / "data" / "up.json").exists(), "the engine has ended"


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    kept = tmp_path / "letters.txt"
    kept.write_text("keep me")
    done = subprocess.run(
        [sys.executable, "-m", "examples.shop.demo", str(tmp_path)], cwd=ROOT, capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    assert 2 == done.returncode
    assert "keep me" == kept.read_text()


@pytest.fixture(scope="module")
def sound() -> Story:
    """A demo in which everything went well, made by hand."""
    shoppers = Shoppers(7, 1_795_000_000_000)
    events = len(shoppers.events())
    truth = shoppers.truth
    kept = len(truth.distinct) + truth.duplicates + truth.malformed
    kept += len(read_catalogue()) + len(shoppers.crm_rows()) + 2 * PROBES
    law = {"conserved": True, "accepted": kept, "deduplicated": truth.duplicates,
           "dead_lettered": truth.malformed, "in_flight": 0}  # fmt: skip
    product = read_catalogue()[0]
    probes = [
        Probe(Visitor(f"v-{n}", f"d-{n}", f"{n}@example.com", "Ada", product), 5.0, 5.0, 1)
        for n in range(PROBES)
    ]
    willing = sorted(set(truth.emails) - truth.denied - truth.unsubscribed)
    letters = {truth.emails[user]: Path(f"{user}.eml") for user in willing}
    send = {"outcomes": {"accepted": len(letters)}}
    emails = [Seen(one, "shown") for one in probes]
    return Story(
        Path(),
        shoppers,
        Intake(events, truth.malformed, 130, 6.0),
        probes,
        law,
        send,
        letters,
        emails,
    )


def broken(story: Story) -> list[str]:
    return [promise.what for promise in promised(story) if not promise.holds]


def test_a_demo_in_which_all_went_well_keeps_every_promise(sound):
    assert [] == broken(sound)


def test_each_promise_can_be_broken(sound):
    law, probes, letters = sound.law, sound.probes, sound.letters
    refuser = sound.shoppers.truth.emails[min(sound.shoppers.truth.unsubscribed)]
    swapped = dict(list(letters.items())[1:]) | {refuser: Path("refuser.eml")}
    slow = [probe._replace(served_ms=900.0) for probe in probes[:3]] + probes[3:]
    wrong = [sound.emails[0]._replace(outcome="wrong"), *sound.emails[1:]]
    faults = {
        "few events": sound._replace(intake=sound.intake._replace(events=11_999)),
        "not conserved": sound._replace(law=law | {"conserved": False}),
        "an event lost": sound._replace(law=law | {"accepted": law["accepted"] - 1}),
        "a copy counted": sound._replace(law=law | {"deduplicated": law["deduplicated"] - 1}),
        "a view not shown": sound._replace(probes=probes[1:]),
        "slow": sound._replace(probes=slow),
        "an email lost": sound._replace(letters=dict(list(letters.items())[1:])),
        "a refuser mailed": sound._replace(letters=swapped),
        "another product": sound._replace(emails=wrong),
    }
    assert dict.fromkeys(faults, 1) == {name: len(broken(story)) for name, story in faults.items()}
