"""What becomes of connections when there are many: who gives way to whom, and who never does."""

import json

import pytest

from penstock.edges.asgi import json_answer
from penstock.edges.crowd import TOLD_MAX
from penstock.edges.limits import Limits
from tests.edges.fast.test_fast_connections import GET, Served, post, serving

pytestmark = pytest.mark.anyio


def open_connections(served: Served) -> int:
    return len(served.listening.state.connections)


def ended(served: Served, reason: str) -> float:
    return served.metrics.value("penstock_connections_ended_total", reason=reason)


async def test_the_longest_idle_gives_way_to_a_newcomer(listening):
    async with serving(listening, connections=3) as served:
        wires = [await served.open() for _ in range(3)]
        for wire in wires:
            assert 200 == (await wire.ask(GET)).status
        served.server.crowd.pass_time(1)
        assert 200 == (await wires[0].ask(GET)).status
        served.server.crowd.pass_time(1)
        newcomer = await served.open()
        assert 200 == (await newcomer.ask(GET)).status
        assert b"" == await wires[1].rest()
        for wire in (wires[0], wires[2], newcomer):
            assert 200 == (await wire.ask(GET)).status
        assert 1 == ended(served, "idle")


@pytest.mark.parametrize("part", ["GET /echo/x HTTP/1.1\r\nh", post("abc")[:-1]])
async def test_who_sends_slowly_is_told_so_and_gives_way(listening, part):
    async with serving(listening, connections=2) as served:
        slow = [await served.open() for _ in range(2)]
        for wire in slow:
            wire.send(part)
        await served.listening.until(
            lambda: (
                len(served.listening.connections) == 2
                and all(one._phase for one in served.listening.connections)
            )
        )
        served.server.crowd.pass_time(1)
        newcomer = await served.open()
        assert 200 == (await newcomer.ask(GET)).status
        answer = await slow[0].answer()
        assert (408, "E377") == (answer.status, json.loads(answer.body)["code"])
        assert 1 == ended(served, "slow")
        slow[1].send("c" if part.startswith("POST") else ": v\r\n\r\n")
        assert 200 == (await slow[1].answer()).status


async def test_who_gives_way_may_go_on_sending_for_a_while_and_read_why(listening):
    """A close at once would have the kernel answer what is sent after it with a reset, and the answer lost."""
    async with serving(listening, connections=1) as served:
        slow = await served.open()
        slow.send(post("a" * 90_000)[:-1])
        await served.listening.until(
            lambda: bool(served.listening.connections and served.server.held_bytes)
        )
        served.server.crowd.pass_time(1)
        newcomer = await served.open()
        assert 200 == (await newcomer.ask(GET)).status
        assert 1 == len(served.server.crowd), "who gave way is not counted any more"
        slow.send("b" * 50_000)
        answer = await slow.answer()
        assert (408, "close") == (answer.status, answer.headers["connection"])
        assert 2 == open_connections(served)
        served.server.crowd.pass_time(Limits().linger_s + 1)
        await served.listening.until(lambda: open_connections(served) == 1)


async def test_nobody_at_work_gives_way_and_the_newcomer_is_told_when_to_come_again(listening):
    async with serving(listening, connections=2) as served:
        busy = [await served.open() for _ in range(2)]
        for wire in busy:
            wire.send("GET /later HTTP/1.1\r\nhost: h\r\n\r\n")
        await served.listening.until(lambda: len(served.pending) == 2)
        served.server.crowd.pass_time(40)
        newcomer = await served.open()
        answer = await newcomer.answer()
        assert (429, "E435") == (answer.status, json.loads(answer.body)["code"])
        assert int(answer.headers["retry-after"]) >= 1
        assert b"" == await newcomer.rest()
        assert 1 == served.metrics.value("penstock_requests_shed_total", reason="connections")
        for wire, pending in zip(busy, served.pending, strict=True):
            pending.set(json_answer(200, {}))
            assert 200 == (await wire.answer()).status


async def test_a_flood_of_connections_never_leaves_more_open_than_are_allowed(listening):
    async with serving(listening, connections=10) as served:
        for second in range(5):
            for _ in range(60):
                wire = await served.open()
                wire.send("GET /echo/x HTTP/1.1\r\n" if second % 2 else "")
            await served.listening.until(
                lambda second=second: len(served.listening.connections) == 60 * (second + 1)
            )
            await served.listening.until(lambda: open_connections(served) <= 10 + TOLD_MAX)
            served.server.crowd.pass_time(1)
        good = await served.open()
        assert 200 == (await good.ask(GET)).status


async def test_idle_connections_over_their_limit_are_closed_the_longest_idle_first(listening):
    async with serving(listening, idle_connections=2) as served:
        wires = [await served.open() for _ in range(4)]
        for wire in wires:
            assert 200 == (await wire.ask(GET)).status
            served.server.crowd.tick += 1
        assert 200 == (await wires[0].ask(GET)).status
        wires[2].send("GET /later HTTP/1.1\r\nhost: h\r\n\r\n")
        await served.listening.until(lambda: len(served.pending) == 1)
        served.server.crowd.pass_time(1)
        assert b"" == await wires[1].rest()
        for wire in (wires[0], wires[3]):
            assert 200 == (await wire.ask(GET)).status
        assert 3 == served.metrics.value("penstock_connections")


async def test_a_head_that_comes_at_once_and_does_not_end_is_cut_off(listening):
    """What the kernel hands over at once is a quarter of a megabyte: each slice of it is looked at."""
    async with serving(listening) as served:
        wire = await served.open()
        wire.send("GET /echo/x HTTP/1.1\r\nx: " + "a" * 100_000)
        assert 431 == (await wire.answer()).status
        await served.listening.until(lambda: served.server.held_bytes == 0)


async def test_heads_that_fill_the_memory_are_refused_and_a_small_one_never_is(listening):
    async with serving(listening, held_bytes=20_000, small_head_bytes=1_000) as served:
        slow = [await served.open() for _ in range(3)]
        head = "GET /echo/x HTTP/1.1\r\nx: "
        for wire, size in ((slow[0], 15_000), (slow[1], 500)):
            held = served.server.held_bytes
            wire.send(head + "a" * size)
            await served.listening.until(lambda held=held: served.server.held_bytes > held)
        slow[2].send(head + "a" * 8_000)
        refused = await slow[2].answer()
        assert (429, "E435") == (refused.status, json.loads(refused.body)["code"])
        slow[1].send("\r\n\r\n")
        assert 200 == (await slow[1].answer()).status


async def test_a_large_request_takes_room_until_it_is_answered(listening):
    async with serving(listening, held_bytes=100_000) as served:
        wire = await served.open()
        wire.send(post("x" * 70_000, path="/later"))
        await served.listening.until(lambda: bool(served.pending))
        assert 70_000 == served.server.held_bytes
        other = await served.open()
        other.send("POST /echo HTTP/1.1\r\ncontent-length: 90000\r\n\r\n", "x" * 80_000)
        assert "E435" == json.loads((await other.answer()).body)["code"]
        served.pending[0].set(json_answer(200, {}))
        assert 200 == (await wire.answer()).status
        await served.listening.until(lambda: served.server.held_bytes == 0)
