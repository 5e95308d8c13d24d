"""The serving routes that are asked at every email: answered from the parser, and under any other server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, ParamSpec, TypeVar
from urllib.parse import parse_qsl

from penstock.core.errors import EventRejected, PenstockError
from penstock.edges.asgi import Answer, error_answer, json_answer
from penstock.edges.route import STATUS, Pending, Request, Route
from penstock.edges.serving.asks import (
    MakeLeaf,
    ReadKeys,
    Recipient,
    path_identifier,
    people_of,
    require_parameters,
    require_room,
    says_yes,
    who,
)
from penstock.flows.serve import Answer as Decided
from penstock.flows.serve import Outcome, Who
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics

T = TypeVar("T")
P = ParamSpec("P")

PROFILE = "/v1/profiles/{identifier}"
PROFILES = "/v1/profiles"
DECIDE = "/v1/decide/{campaign}"
SECONDS = "penstock_serve_seconds"

PROFILE_PARAMETERS = ("as_of", "known_at")
DECIDE_PARAMETERS = ("user_id", "anonymous_id", "email_token", "send", "preview")
RENDER_PARAMETERS = (*DECIDE_PARAMETERS, "part")
MANY_BYTES_MAX = 4 * 1024 * 1024
"""Of a batch of people; `RECIPIENTS_MAX` of them fit, however long what they are named by is."""

NAMED_MAX = 20_000
"""Identifiers whose leaves are kept, as many as people are remembered: to make one anew is a tenth of a read."""

ReadNow = Callable[[Who], Coroutine[Any, Any, Answer]]
ReadProfile = Callable[[Who, str | None, str | None], Coroutine[Any, Any, Answer]]
ReadMany = Callable[[Sequence[Who | str]], Coroutine[Any, Any, Answer]]
Again = Callable[[str, Recipient, str | None], Coroutine[Any, Any, Decided | None]]
Decide = Callable[..., Coroutine[Any, Any, Outcome]]


class HotReads(NamedTuple):
    """The hot routes of serving."""

    profile: Route
    profiles: Route
    decide: Route


class Reads(NamedTuple):
    """What the hot routes of serving call.

    Attributes:
        at_hand: Answers with a person's profile as of now, if nothing is to be waited for.
        now: Answers with it anyway.
        profile: The same, of whom, `as_of`, `known_at`.
        profiles: Answers with many people's, given whom, or why one is nobody. It changes nothing.
        again: Answers with a decision that is at hand, or None: `(campaign, asked, send)`. It changes nothing.
        decide: Decides: `(campaign, asked, send, preview=…)`.
        find_who: Returns whom a recipient is; raises EventRejected for who is nobody.
    """

    at_hand: Callable[[Who], Answer | None]
    now: ReadNow
    profile: ReadProfile
    profiles: ReadMany
    again: Again
    decide: Decide
    find_who: Callable[[Recipient], Who]


def hot_reads(
    reads: Reads, *, read_keys: ReadKeys, make_leaf: MakeLeaf, clock: Clock, metrics: Metrics
) -> HotReads:
    """Return the hot routes of serving.

    Args:
        reads: What answers.
        read_keys: Who may ask.
        make_leaf: Makes leaf ids.
        clock: For the access log and the time taken.
        metrics: Where requests are counted.
    """

    @lru_cache(NAMED_MAX)
    def named(identifier: str) -> Who:
        return who(*path_identifier(identifier), make_leaf)

    def profile(request: Request) -> Answer | Awaitable[Answer]:
        read_keys.require(request.headers)
        whom = named(request.param)
        if not request.query:
            return reads.at_hand(whom) or promptly(reads.now, whom)
        said = said_in(request.query, PROFILE_PARAMETERS)
        return promptly(reads.profile, whom, said.get("as_of"), said.get("known_at"))

    def named_or_why(one: Recipient) -> Who | str:
        try:
            return reads.find_who(one)
        except EventRejected as error:
            return error.code

    def profiles(request: Request) -> Answer | Awaitable[Answer]:
        people = people_of(request.body).people
        read_keys.require(request.headers)
        require_room(len(people), "people")
        whom = [named_or_why(one) for one in people]
        return promptly(reads.profiles, whom)

    def decided(request: Request) -> Answer | Awaitable[Answer]:
        read_keys.require(request.headers)
        said = said_in(request.query, DECIDE_PARAMETERS)
        asked = Recipient(
            user_id=said.get("user_id"),
            anonymous_id=said.get("anonymous_id"),
            email_token=said.get("email_token"),
        )
        send = said.get("send")
        preview = says_yes(said.get("preview"), "preview")
        if not preview:
            answer = at_once(reads.again(request.param, asked, send))
            if answer is not None:
                return json_answer(200, answer)
        return anew(request.param, asked, send, preview)

    async def anew(campaign: str, asked: Recipient, send: str | None, preview: bool) -> Answer:
        outcome = await reads.decide(campaign, asked, send, preview=preview)
        return json_answer(200, outcome.answer)

    shared: dict[str, Any] = {
        "clock": clock, "metrics": metrics, "seconds": SECONDS, "refuse": refuse_read,
    }  # fmt: skip
    return HotReads(
        Route("GET", PROFILE, profile, **shared),
        Route("POST", PROFILES, profiles, **shared, body_bytes_max=MANY_BYTES_MAX),
        Route("GET", DECIDE, decided, **shared),
    )


def said_in(query: bytes, known: Collection[str]) -> dict[str, str]:
    """Return a query's parameters.

    Raises:
        EventRejected: There is one that the route does not take (E397, E395).
    """
    if not query:
        return {}
    said = _pairs(query.decode("latin-1"))
    require_parameters(said, known)
    return said


def _pairs(query: str) -> dict[str, str]:
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # Nothing to decode, as nearly always: the same, in a fifth of the time.
    said: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if name or equals:
            said[name] = value
    return said


def refuse_read(request: Request, error: PenstockError) -> Answer:
    """Return the answer to an error of a read: 401 without a key, 400 for what can't be asked."""
    if isinstance(error, EventRejected):
        return error_answer(error, 401 if error.code == "E391" else STATUS.get(error.code, 0))
    return error_answer(error)


def promptly(
    make: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> T | Awaitable[T]:
    """Return what a coroutine returns without waiting; of one that waits, one that is not begun.

    A task costs more than most reads, and most wait for nothing. One that does wait is begun anew,
    which is why this is for what changes nothing.
    """
    coroutine = make(*args, **kwargs)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    return make(*args, **kwargs)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T | None:
    """Return what a coroutine that changes nothing returns without waiting; None if it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    return None


async def answered(route: Route, request: Request) -> Answer:
    """Return a hot route's answer for whoever serves it another way."""
    pending = Pending()
    route.begin(request, pending.set)
    return await pending
