"""The preview's routes. They show a shopper's email without a key, so they answer this machine only."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.core.decision.explain import explain, slot_lines
from penstock.core.errors import EventRejected, PenstockError
from penstock.edges.asgi import Answer, error_answer, json_answer
from penstock.edges.loopback import require_this_name, this_machine_only
from penstock.edges.preview.views import EmailView, ItemView, ShopView, SlotWhy
from penstock.flows.compose_email import REFUSE_BYTES, WARN_BYTES
from penstock.flows.evidence import events_behind
from penstock.flows.history import History
from penstock.flows.render import Links, render_email
from penstock.flows.serve import Serving, Who
from penstock.flows.shelf import ShelfItem, categories

PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src * data:; frame-src 'self'; base-uri 'none'; form-action 'none'"
)
"""The email in the frame inherits it: its styles are inline and its pictures anywhere, and no script
runs but the page's own."""
IMAGE_BYTES_MAX = 5 * 1024 * 1024

Find = Callable[[Any], Who]


class PreviewParts(NamedTuple):
    """What the preview's routes call."""

    name: str
    write_key: str
    consent: list[str]
    serving: Callable[[], Serving]
    """What serves now."""
    links: Links
    text_of_html: Callable[[str], str]
    find_who: Find
    history: History
    shelf: Callable[[], Awaitable[list[ShelfItem]]]
    images: Mapping[str, Path]
    """Where the pictures of an address prefix lie, for a shop that is not on the web yet."""


class Shopper(NamedTuple):
    """Whom the page plays."""

    user_id: str | None = None
    anonymous_id: str | None = None
    email: str | None = None
    email_token: str | None = None


def preview_handlers(parts: PreviewParts) -> list[HTTPRouteHandler]:
    """Return the preview's routes; only `penstock up` on a loopback address mounts them."""
    files = _page_files()
    shared = this_machine_only()
    # The email's frame has an origin of its own, and its pictures show nobody.
    pictures = this_machine_only(require_this_name)

    @get("/preview", **shared)
    async def page() -> Answer:
        return files["index.html"]

    @get("/preview/{name:str}", **shared)
    async def page_file(name: FromPath[str]) -> Answer:
        return files[name] if name in files else _absent()

    @get("/preview/api/shop", **shared)
    async def shop() -> Answer:
        return json_answer(200, await _shop(parts))

    @get("/preview/api/email", **shared)
    async def email(
        campaign: FromQuery[str] = "", user_id: FromQuery[str | None] = None,
        anonymous_id: FromQuery[str | None] = None,
    ) -> Answer:  # fmt: skip
        try:
            return json_answer(200, await _email(parts, campaign, Shopper(user_id, anonymous_id)))
        except PenstockError as error:
            return error_answer(error)

    @get("/preview/images/{prefix:int}/{name:str}", **pictures)
    async def image(prefix: FromPath[int], name: FromPath[str]) -> Answer:
        return await asyncio.to_thread(_image, list(parts.images.values()), prefix, name)

    return [page, page_file, shop, email, image]


async def _shop(parts: PreviewParts) -> ShopView:
    items = await parts.shelf()
    return ShopView(
        name=parts.name,
        write_key=parts.write_key,
        campaigns=[name for name, one in parts.serving().campaigns.items() if one.template],
        consent=parts.consent,
        items=[
            ItemView(one.id, one.title, one.category, _local(parts.images, one.image_url), one.price,
                     one.currency)
            for one in items
        ],
        categories=categories(items),
        warn_bytes=WARN_BYTES,
        refuse_bytes=REFUSE_BYTES,
    )  # fmt: skip


async def _email(parts: PreviewParts, campaign_name: str, shopper: Shopper) -> EmailView:
    """Return the email as it would be sent now. The decision is not recorded: nobody gets it."""
    serving = parts.serving()
    campaign = serving.campaigns.get(campaign_name)
    if campaign is None or not campaign.template:
        raise EventRejected("E399", "there is no such campaign, or it has no template", where="campaign",
                            fix="use the name of a file in campaigns/ that names a template")  # fmt: skip
    outcome = await serving.decide(campaign.name, parts.find_who(shopper), preview=True)
    rendered = render_email(
        serving.renderer, campaign, outcome.answer, outcome.profile, links=parts.links, recipient=None,
        text_of_html=parts.text_of_html, track=False,
    )  # fmt: skip
    decision, profile = outcome.decision, outcome.profile
    slots: list[SlotWhy] = []
    if decision is not None and profile is not None:
        evidence = await asyncio.to_thread(
            events_behind,
            parts.history,
            profile.leaves,
            decision,
            serving.definitions.plan.features,
        )
        slots = [
            SlotWhy(story.slot, list(story.shows), slot_lines(story, evidence))
            for story in explain(decision, evidence).slots
        ]
    html = rendered.html
    for number, prefix in enumerate(parts.images):
        html = html.replace(prefix, f"/preview/images/{number}/")
    return EmailView(
        served=outcome.answer.served,
        reason=outcome.answer.reason,
        known_at=decision.known_at if decision is not None else -1,
        age_ms=outcome.answer.age_ms,
        subject=rendered.subject,
        html=html,
        text=rendered.text,
        bytes=rendered.size.bytes,
        verdict=rendered.size.verdict,
        slots=slots,
        permitted=sorted(profile.permitted) if profile is not None else [],
        features=profile.features if profile is not None else {},
    )


# -- files


def _page_files() -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for entry in (resources.files("penstock.edges.preview") / "page").iterdir():
        kind = PAGE_TYPES.get(Path(entry.name).suffix)
        if kind is not None:
            found[entry.name] = _file(entry.read_bytes(), f"{kind}; charset=utf-8")
    return found


def _file(body: bytes, kind: str) -> Answer:
    headers = (
        (b"content-type", kind.encode()),
        (b"content-security-policy", POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-cache"),
    )
    return Answer(200, body, headers)


def _absent() -> Answer:
    error = EventRejected("E380", "there is no such route, or it takes another method",
                          fix="see docs/reference/http.md for the routes")  # fmt: skip
    return error_answer(error, 404)


def _local(images: Mapping[str, Path], url: str) -> str:
    for number, prefix in enumerate(images):
        if url.startswith(prefix):
            return f"/preview/images/{number}/{url.removeprefix(prefix)}"
    return url


def _image(folders: list[Path], prefix: int, name: str) -> Answer:
    """Return the picture of a name, whatever kind of picture lies there under that stem."""
    stem = Path(name).stem
    if not 0 <= prefix < len(folders) or not stem.replace("-", "").replace("_", "").isalnum():
        return _absent()
    for path in sorted(folders[prefix].glob(f"{stem}.*")):
        kind = mimetypes.guess_type(path.name)[0] or ""
        if kind.startswith("image/") and path.stat().st_size <= IMAGE_BYTES_MAX:
            # A picture that is SVG may hold a script; opened by itself it must not run.
            return _file(path.read_bytes(), kind)
    return _absent()
