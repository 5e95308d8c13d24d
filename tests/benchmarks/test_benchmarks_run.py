"""The benchmarks run from end to end with tiny sizes, so that they can't rot; nothing is measured."""

import gc
import gzip
import hashlib
import json

import pytest

from benchmarks import (
    client,
    durable,
    fold,
    loads,
    over_http,
    report,
    sampling,
    servers,
    workload,
)
from benchmarks.measure import Row, Sample, compare, interleaved, row
from benchmarks.run import BENCHMARKS, FIGURES, RESULTS
from benchmarks.workload import TINY
from penstock.adapters.log.sqlite import SqliteLog
from penstock.core.record import decode_record
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
        assert ours.spent
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
    step = workload.new_step(workload.project())
    spent = sampling.sampled(lambda: [fold.feed(fold.new_fold(step), fed) for _ in range(5)])
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
    assert {"http", "fold", "durable", "replay", "liquid"} == set(BENCHMARKS)


def test_the_page_of_figures_shows_the_newest_run():
    results = report.newest(RESULTS)
    assert results is not None
    assert report.figures(results) == FIGURES.read_text(encoding="utf-8")
