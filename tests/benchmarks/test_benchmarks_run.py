"""The benchmarks run from end to end with tiny sizes, so that they can't rot; nothing is measured."""

import gc
import gzip
import hashlib
import json
import time
from xml.etree import ElementTree as ET

import pytest

from benchmarks import (
    chart,
    client,
    durable,
    fold,
    growth,
    loads,
    million,
    over_http,
    report,
    restart,
    sampling,
    servers,
    workload,
)
from benchmarks.crowd import Crowd
from benchmarks.measure import Row, Sample, amount, compare, interleaved, row
from benchmarks.run import BENCHMARKS, CHART, FIGURES, LONG, RESULTS
from benchmarks.workload import TINY
from penstock.adapters.log.sqlite import SqliteLog
from penstock.core.record import decode_record
from penstock.core.step import Step
from penstock.testing.clock import HandClock


@pytest.fixture(autouse=True)
def garbage_collection_as_before():
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def works(rows: list[Row]) -> list[str]:
    return [f"{one.work} / {one.state}" for one in rows]


def test_the_workload_is_pinned_byte_for_byte():
    stream = workload.stream(TINY.people, TINY.events, "zipf")
    digest = hashlib.blake2b(b"".join(stream.wire) + b"".join(stream.values), digest_size=8)
    assert "5277b02f6d7abf7d" == digest.hexdigest()


def test_the_workload_has_the_duplicates_the_refusals_and_the_protections_that_it_names():
    stream = workload.stream(1_000, 4_000, "zipf")
    copies = len(stream.wire) - len(set(stream.wire))
    assert 40 < copies < 120
    text = b"".join(stream.values)
    assert b"shop.example/p/" not in text
    assert b"phone-" not in text
    assert b"postcode" in text
    assert b"1AA" not in text


def test_the_fold_is_measured_beside_bytewax(tmp_path):
    rows, left_out = fold.measure(TINY, tmp_path)
    assert [] == left_out
    assert ["zipf, hot", "zipf, hot", "uniform, hot", "uniform, cold"] == [
        one.state for one in rows
    ]
    assert all(one.rate > 0 for one in rows)
    assert {"Bytewax"} == set(rows[0].beside)
    floors, goals = rows[0].targets(0), rows[0].targets(1)
    assert floors[1].startswith("2.5 x Bytewax: ")
    assert goals[1].startswith("4 x Bytewax: ")


def test_the_durable_path_is_measured(tmp_path):
    rows = durable.measure(TINY, tmp_path)
    assert 4 == len(rows)
    assert all(one.rate > 0 for one in rows)


def test_a_replay_gives_equal_bytes_and_duckdb_the_same_features(tmp_path):
    ours, theirs = durable.measure_replay(TINY, tmp_path)
    assert {"DuckDB"} == set(ours.beside)
    assert theirs.rate > 0


@pytest.mark.slow
def test_what_goes_over_http_is_measured_and_every_answer_is_200(tmp_path):
    rows, _ = over_http.measure(TINY, tmp_path)
    assert [] == [one.note for one in rows if "not 200" in one.note]
    by_work = {one.work: one for one in rows}
    for case in over_http.CASES.values():
        ours = by_work[case.work]
        assert ours.rate > 0
        assert bool(ours.spent) == bool(case.floor or case.against)
        assert set(case.against) - {"nginx"} <= set(ours.beside)
    assert "freshness" == rows[-1].group
    assert 0 < rows[-1].p50_ms <= rows[-1].p99_ms


def test_the_collector_alone_answers_when_the_event_is_in_the_log(tmp_path):
    server = servers.collector(tmp_path, None)
    try:
        event = workload.first_visits(1).wire[0]
        assert 400 == server.request("POST", "/v1/track", event)[0]
        assert 200 == server.request("POST", "/v1/track", event, workload.BASIC)[0]
        spent = server.sampled(
            lambda: [server.request("POST", "/v1/track", event, workload.BASIC) for _ in range(50)]
        )
    finally:
        server.stop()
    log = SqliteLog(tmp_path / "project" / "data" / "log.db", HandClock(workload.START_MS))
    kept = [decode_record(one.value) for one in log.read(0, 0, 100)]
    log.close()
    assert 51 == len(kept)
    assert {"Product Viewed"} == {one.name for one in kept}
    assert sum(spent.values()) == pytest.approx(1)


def sent_by_the_client(load: loads.Load, number: int) -> bytes:
    requests = client.requests_of(load.method, load.path, load.file, load.authorization)
    sender = client.Client(requests, "t", 0)
    sender.number = number
    return sender.next_request()


def test_loads_are_fresh_where_they_are_to_be_and_gzip_holds_the_same_events(tmp_path):
    sent = loads.write_loads(tmp_path, 50, "zipf")
    head, _, body = sent_by_the_client(sent["batch"], 0).partition(b"\r\n\r\n")
    plain = json.loads(body)["batch"]
    assert all(one["messageId"].startswith("t1-") for one in plain)
    head, _, body = sent_by_the_client(sent["gzip"], 0).partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    packed = json.loads(gzip.decompress(body))["batch"]
    assert [one["timestamp"] for one in plain] == [one["timestamp"] for one in packed]
    assert b"&send=t8- HTTP/1.1" in sent_by_the_client(sent["decide"], 7)
    assert b"&send=again HTTP/1.1" in sent_by_the_client(sent["again"], 7)
    people = json.loads(sent_by_the_client(sent["many"], 0).partition(b"\r\n\r\n")[2])["people"]
    assert loads.BATCH == len(people)


def test_what_a_function_of_ours_spends_is_found_by_sampling():
    fed = workload.stream(TINY.people, TINY.events, "zipf").log_records()
    project = workload.project()
    # In Python: what is sampled are its functions.
    step = Step(project.plan, project.step_rules()._replace(accelerate=None))
    until = time.process_time() + 0.5  # a hundred samples and more

    def work() -> None:
        while time.process_time() < until:
            fold.feed(fold.fold_of(step), fed)

    spent = sampling.sampled(work)
    assert sum(spent.values()) == pytest.approx(1)
    assert "core/step" in spent


def test_rounds_are_interleaved_forwards_and_backwards():
    order: list[str] = []

    def note(name: str) -> Sample:
        order.append(name)
        return Sample(1, 1.0, 1.0)

    interleaved(2, {"a": lambda: note("a"), "b": lambda: note("b")})
    assert ["a", "b", "b", "a"] == order


def test_a_missed_floor_and_a_slower_peer_are_said():
    ours = row("g", "work", "zipf, hot", "events", [Sample(100, 1.0, 2.0)], floor=200)
    peer = row("g", "peer", "zipf, hot", "events", [Sample(50, 1.0, 1.0)])
    compare(ours, Peer=peer)
    assert ["200: missed by 50 %"] == ours.targets(0)
    assert {"Peer": (2.0, 2.0)} == ours.beside


def test_of_seconds_and_megabytes_less_is_better():
    memory = amount("g", "profiles", "hot", "MB", [300.0, 200.0, 400.0], floor=250.0, goal=350.0)
    assert 300.0 == memory.rate
    assert ["250 MB: missed: 1.20 times the 250 MB"] == memory.targets(0)
    assert ["350 MB: kept"] == memory.targets(1)


def test_a_leaf_of_a_clone_is_what_folding_the_visits_of_the_clone_makes(tmp_path):
    people = Crowd(40, 100)
    step = workload.new_step(workload.project())
    copied, folded = (
        durable.DurablePath(tmp_path / name, step)
        for name in ("copied", "folded")
        if (tmp_path / name).mkdir() is None
    )
    copied.take(people.visits(0, 40))
    million.copy_leaves(copied, 3)
    folded.take(people.visits(0, 120))
    found, expected = copied.store.scan(1, None, 1_000), folded.store.scan(1, None, 1_000)
    copied.close()
    folded.close()
    assert len(expected) > 120
    assert [leaf for leaf, _ in expected] == [leaf for leaf, _ in found]
    assert [one.parts for _, one in expected] == [one.parts for _, one in found]


def test_a_crowd_is_pinned_and_has_events_of_its_own_each_turn():
    people = Crowd(TINY.people, TINY.crowd_events)
    first, again = (people.stream(600, 300, "zipf", 0) for _ in range(2))
    assert first.values == again.values
    other = people.stream(600, 300, "zipf", 1)
    ids = {decode_record(value).event_id for value in first.values}
    assert not ids & {decode_record(value).event_id for value in other.values}
    assert 280 <= len(ids) <= 300
    leaves = {decode_record(value).leaf for value in people.stream(600, 3_000, "uniform", 2).values}
    assert TINY.people < len(leaves) <= 600


def test_the_durable_path_is_measured_over_a_crowd(tmp_path):
    rows = million.measure(TINY, tmp_path)
    assert ["zipf", "uniform"] == [one.state for one in rows]
    assert all(one.rate > 0 and one.floor for one in rows)


@pytest.mark.slow
def test_memory_and_growth_are_measured_in_a_process_of_their_own(tmp_path):
    (tmp_path / "memory").mkdir()
    (memory,) = growth.measure_memory(TINY, tmp_path / "memory")
    assert "MB" == memory.unit
    (tmp_path / "growth").mkdir()
    *rates, held = growth.measure_growth(TINY, tmp_path / "growth")
    assert len(TINY.grown) == len(rates)
    assert [0.0] == [one.floor for one in rates[:1]]
    assert all(one.floor == pytest.approx(0.9 * rates[0].rate) for one in rates[1:])
    assert held.floor
    logged = int(rates[-1].note.split()[1].replace(",", ""))
    assert TINY.grown_events <= logged <= TINY.grown_events + 2 * TINY.durable_events


@pytest.mark.slow
def test_a_restart_is_measured_on_logs_of_two_sizes(tmp_path):
    rows = restart.measure(TINY, tmp_path)
    assert 4 == len(rows)
    ready, answer = rows[:2]
    assert 0 < answer.rate <= ready.rate
    assert sum(answer.spent.values()) == pytest.approx(1)
    log = SqliteLog(tmp_path / "project" / "data" / "log.db", HandClock(workload.START_MS))
    assert log.head(0) >= TINY.logs[1]
    log.close()


def test_a_report_names_the_machine_but_no_host(tmp_path):
    ours = row("g", "work", "zipf, hot", "events", [Sample(100, 1.0, 2.0)], floor=200)
    results = report.Results(
        date="2026-11-25", machine=report.machine(), sizes=TINY, seed=1, gc_thresholds=(1, 2, 3),
        seconds=1.0, rows=[ours], left_out=["nginx is not installed"],
    )  # fmt: skip
    page = report.write(results, tmp_path).read_text()
    assert "| work | zipf, hot | 100 events/s |" in page
    assert "missed by 50 %" in page
    assert "Left out: nginx is not installed." in page
    assert {"http", "fold", "durable", "replay", "liquid"} < set(BENCHMARKS)
    assert {"growth"} == set(LONG)


def results_of(*rows: Row, date: str = "2026-11-25") -> report.Results:
    return report.Results(
        date=date, machine=report.machine(), sizes=TINY, seed=1, gc_thresholds=(1, 2, 3), seconds=1.0,
        rows=list(rows), left_out=[],
    )  # fmt: skip


def test_where_the_time_goes_is_said_of_what_misses_its_floor_alone():
    late = row("g", "late", "zipf, hot", "events", [Sample(100, 1.0, 2.0)], floor=200)
    kept = row("g", "kept", "zipf, hot", "events", [Sample(100, 1.0, 2.0)], floor=50)
    for one in (late, kept):
        one.spent = {"core/step": 0.6, "the event loop": 0.4}
    page = report.markdown(results_of(late, kept))
    assert "- late (zipf, hot): `core/step` 60 %, the event loop 40 %." in page
    assert "- kept" not in page


def test_what_takes_long_stays_in_later_results_with_its_date():
    grown = row("growth", "grown", "zipf", "events", [Sample(100, 1.0, 2.0)])
    short = row("g", "work", "zipf, hot", "events", [Sample(100, 1.0, 2.0)])
    long = results_of(short, grown, date="2026-11-26")
    second = report.with_kept(results_of(short, date="2026-11-27"), long, set(LONG))
    third = report.with_kept(results_of(short, date="2026-11-28"), second, set(LONG))
    for later in (second, third):
        assert [grown] == later.kept
        assert "2026-11-26" == later.kept_date
        assert "| grown | zipf |" in report.markdown(later)
    assert [] == report.with_kept(long, second, set(LONG)).kept


def test_a_part_of_a_run_does_not_become_the_newest_results():
    part = results_of(row("fold", "fold", "zipf, hot", "events", [Sample(100, 1.0, 2.0)]))
    whole = results_of(*part.rows, row("growth", "grown", "zipf", "events", [Sample(1, 1.0, 2.0)]))
    grown = results_of(
        row("growth", "anew", "zipf", "events", [Sample(2, 1.0, 2.0)]), date="2026-11-26"
    )
    asked = {"whole": {"fold", "http"}, "long": {"growth"}}
    assert report.to_write(part, whole, ran={"fold"}, **asked) is None
    assert report.to_write(grown, None, ran={"growth"}, **asked) is None
    assert whole.rows[1:] == report.to_write(part, whole, ran={"fold", "http"}, **asked).kept
    later = report.to_write(grown, whole, ran={"growth"}, **asked)
    assert ("2026-11-25", "2026-11-26") == (later.date, later.kept_date)
    assert (whole.rows[:1], grown.rows) == (later.rows, later.kept)


def test_the_chart_has_a_bar_for_every_floor_and_says_each_in_words():
    fast = row(
        "g", "fast & <furious>", "zipf, hot", "events", [Sample(500, 1.0, 2.0)], floor=200, goal=300
    )
    memory = amount("g", "profiles", "hot", "MB", [500.0], floor=250.0, goal=150.0)
    peer = row("g", "peer", "zipf, hot", "events", [Sample(50, 1.0, 1.0)])
    beside = row(
        "g", "beside", "zipf, hot", "events", [Sample(100, 1.0, 2.0)], against={"Peer": (4.0, 5.0)}
    )
    results = results_of(fast, memory, compare(beside, Peer=peer), peer)
    assert [2.5, 0.5, 0.5] == [one.reached for one in chart.bars(results)]
    picture = chart.svg(results)
    tree = ET.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    assert "1 of 3 floors are kept" in tree.findtext(f"{space}title")
    words = tree.findtext(f"{space}desc")
    assert "fast & <furious>: 500 events/s, floor 200" in words
    assert "profiles (hot): 500 MB, at most 250" in words
    assert "beside, beside Peer: 2.00 x Peer, floor 4 x" in words
    assert 2 == len(tree.findall(f"{space}path[@class='missed']"))
    assert "prefers-color-scheme: dark" in picture
    assert "<script" not in picture


def test_the_page_of_figures_and_its_picture_show_the_newest_run():
    results = report.newest(RESULTS)
    assert results is not None
    assert report.figures(results) == FIGURES.read_text(encoding="utf-8")
    assert chart.svg(results) == CHART.read_text(encoding="utf-8")
