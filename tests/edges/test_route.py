"""How a hot route runs a coroutine: as a task, or eagerly."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.core.errors import EventRejected
from penstock.edges.asgi import Answer, json_answer
from penstock.edges.route import Request, Route
from penstock.testing.clock import HandClock

pytestmark = pytest.mark.anyio


async def turns(count: int = 10) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def route(function: Callable[[Request], Awaitable[Answer]], *, eager: bool) -> Route:
    return Route(
        "POST", "/x", function, clock=HandClock(0), metrics=MemoryMetrics(), eager=eager
    )  # fmt: skip


@pytest.mark.parametrize("eager", [True, False])
async def test_an_eager_coroutine_has_its_first_step_at_once(eager):
    went: list[str] = []
    door: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work(_: Request) -> Answer:
        went.append("begun")
        await asyncio.sleep(0)
        return json_answer(await door, {})

    answers: list[Answer] = []
    route(work, eager=eager).begin(Request({}), answers.append)
    assert (["begun"] if eager else []) == went
    await turns()
    assert (["begun"], []) == (went, answers)
    door.set_result(200)
    await turns()
    assert [200] == [answer.status for answer in answers]


@pytest.mark.parametrize("eager", [True, False])
async def test_what_goes_wrong_is_answered_whoever_runs_it(eager):
    async def refused(_: Request) -> Answer:
        await asyncio.sleep(0)
        raise EventRejected("E300", "no JSON", fix="send some")

    async def failed(_: Request) -> Answer:
        door: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        door.set_exception(ValueError("bob@example.com"))
        return await door

    for work, status in ((refused, 400), (failed, 503)):
        answers: list[Answer] = []
        route(work, eager=eager).begin(Request({}), answers.append)
        await turns()
        assert [status] == [answer.status for answer in answers]
        assert b"bob@" not in answers[0].body


async def test_an_eager_coroutine_that_answers_without_waiting_is_done_when_it_is_begun():
    async def work(_: Request) -> Answer:
        return json_answer(200, {})

    answers: list[Answer] = []
    route(work, eager=True).begin(Request({}), answers.append)
    assert [200] == [answer.status for answer in answers]


async def test_who_is_to_hear_of_an_answer_and_fails_is_logged_and_keeps_nobody_else(caplog):
    def fails(_: Answer) -> None:
        raise ValueError("bob@example.com")

    async def work(_: Request) -> Answer:
        return json_answer(200, {})

    with caplog.at_level(logging.ERROR):
        route(work, eager=True).begin(Request({}), fails)
    assert "ValueError at " in caplog.text
    assert "bob@" not in caplog.text


async def test_what_is_cancelled_is_answered_by_nobody(caplog):
    door: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def work(_: Request) -> Answer:
        return await door

    answers: list[Answer] = []
    route(work, eager=True).begin(Request({}), answers.append)
    door.cancel()
    await turns()
    assert ([], "") == (answers, caplog.text)
