"""The serving API's routes as Litestar serves and documents them; what answers is `edge.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from penstock.edges.asgi import Answer as Reply
from penstock.edges.asgi import ErrorBody
from penstock.edges.route import Request as HotRequest
from penstock.edges.serving.asks import (
    NO,
    YES,
    DecideMany,
    Lookup,
    LookUpMany,
    Recipient,
    last_segment,
    says_yes,
)
from penstock.edges.serving.edge import ServingEdge
from penstock.edges.serving.hot import RENDER_PARAMETERS, answered, said_in
from penstock.edges.serving.views import ManyAnswers, ManyProfiles, ProfileView
from penstock.flows.serve import Answer

WRONG = (
    "The request is wrong, for whomever it asks: a parameter or a type of identifier that does not exist, with the one that "
    "was meant (E393, E397), an email in a URL (E395), or a value that can't be read"
)

Query = FromQuery[str | None]
OnOrOff = Annotated[
    str | None,
    QueryParameter(
        description=f"Decide to look at it, and keep nothing. Yes is any of {', '.join(YES)}; no is any of {', '.join(NO)}; "
        "upper or lower case. Anything else is refused (E397)"
    ),
]


def _documented(kind: type[Any], what: str) -> dict[int, ResponseSpec]:
    return {
        200: ResponseSpec(kind, description=what, generate_examples=False),
        400: ResponseSpec(ErrorBody, description=WRONG, generate_examples=False),
        401: ResponseSpec(ErrorBody, description="No read key", generate_examples=False),
        503: ResponseSpec(
            ErrorBody, description="Retry after `Retry-After` seconds", generate_examples=False
        ),
    }


def serving_handlers(edge: ServingEdge) -> list[HTTPRouteHandler]:
    """Return the serving API's route handlers, to be put on one Litestar application."""
    return [*_profile_handlers(edge), *_decide_handlers(edge), *_render_handlers(edge)]


async def _kept(
    edge: ServingEdge, request: Request[Any, Any, Any], template: str, work: Callable[[], Awaitable[Reply]]
) -> Reply:  # fmt: skip
    """Return the edge's answer to a request with a key, counted and logged."""
    return await edge.answer(request.method, dict(request.scope["headers"]), template, work)


def _hot_request(request: Request[Any, Any, Any], param: str) -> HotRequest:
    return HotRequest(dict(request.scope["headers"]), request.scope["query_string"], param=param)


def _profile_handlers(edge: ServingEdge) -> list[HTTPRouteHandler]:
    responses = _documented(ProfileView, "The person as of now, or of `as_of`")

    # Any path below: an encoded slash in a value is a slash by the time a framework sees it.
    @get("/v1/profiles/{identifier:path}", responses=responses, tags=["serving"],
         summary="A person by `type:value`, such as `user_id:u-42`; never an email")  # fmt: skip
    async def get_profile(
        request: Request[Any, Any, Any],
        identifier: FromPath[str],
        as_of: Query = None,
        known_at: Query = None,
    ) -> Reply:
        # What the signature names is for the document: the hot route reads the request itself.
        asked = last_segment(request.scope, "/v1/profiles/", identifier)
        return await answered(edge.hot.profile, _hot_request(request, asked))

    @post("/v1/profiles/lookup", status_code=200, responses=responses, tags=["serving"],
          summary="A person by email or any identifier, in the body")  # fmt: skip
    async def look_up(request: Request[Any, Any, Any], data: JSONBody[Lookup]) -> Reply:
        async def work() -> Reply:
            whom = edge.find_who(data)
            return await edge.profile(whom, data.as_of, data.known_at)

        return await _kept(edge, request, "/v1/profiles/lookup", work)

    @post("/v1/profiles", status_code=200, tags=["serving"],
          responses=_documented(ManyProfiles, "Each of them as of now, in order"),
          summary="Many people by any identifiers, in the body")  # fmt: skip
    async def look_up_many(request: Request[Any, Any, Any], data: JSONBody[LookUpMany]) -> Reply:
        # Likewise, and what Litestar refuses the hot route refuses in the same words.
        hot = _hot_request(request, "")
        hot.body = await request.body()
        return await answered(edge.hot.profiles, hot)

    return [look_up, look_up_many, get_profile]


def _decide_handlers(edge: ServingEdge) -> list[HTTPRouteHandler]:
    @get("/v1/decide/{campaign:str}", tags=["serving"],
         responses=_documented(Answer, "What this person sees; always content"),
         summary="What one person sees in a campaign")  # fmt: skip
    async def decide_one(
        request: Request[Any, Any, Any], campaign: FromPath[str], user_id: Query = None,
        anonymous_id: Query = None, email_token: Query = None, send: Query = None, preview: OnOrOff = None,
    ) -> Reply:  # fmt: skip
        return await answered(edge.hot.decide, _hot_request(request, campaign))

    @post("/v1/decide/{campaign:str}", status_code=200, tags=["serving"],
          responses=_documented(ManyAnswers, "What each of them sees, in order"),
          summary="What many people see in a campaign")  # fmt: skip
    async def decide_many(
        request: Request[Any, Any, Any], campaign: FromPath[str], data: JSONBody[DecideMany]
    ) -> Reply:
        async def work() -> Reply:
            return await edge.decide_many(campaign, data)

        return await _kept(edge, request, "/v1/decide/{campaign}", work)

    return [decide_one, decide_many]


def _render_handlers(edge: ServingEdge) -> list[HTTPRouteHandler]:
    @get("/v1/render/{campaign:str}", tags=["serving"], media_type="text/html",
         responses={code: spec for code, spec in _documented(Answer, "").items() if code != 200},
         summary="The whole email of one person, as HTML or with `part=text` as text")  # fmt: skip
    async def render(
        request: Request[Any, Any, Any], campaign: FromPath[str], user_id: Query = None,
        anonymous_id: Query = None, email_token: Query = None, send: Query = None, preview: OnOrOff = None,
        part: FromQuery[str] = "html",
    ) -> Reply:  # fmt: skip
        asked = Recipient(user_id=user_id, anonymous_id=anonymous_id, email_token=email_token)

        async def work() -> Reply:
            said = said_in(request.scope["query_string"], RENDER_PARAMETERS)
            yes = says_yes(said.get("preview"), "preview")
            return await edge.render(campaign, asked, send, part, preview=yes)

        return await _kept(edge, request, "/v1/render/{campaign}", work)

    return [render]
