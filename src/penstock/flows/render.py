"""A decision becomes one email: subject, HTML with signed links, text, and its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from penstock.core import tokens
from penstock.core.decision.campaign import Campaign
from penstock.core.errors import DefinitionError
from penstock.core.profile import Profile
from penstock.flows.compose_email import SizeReport, instrument_html, size_report, with_params
from penstock.flows.serve import Answer
from penstock.ports.renderer import Html, Renderer


class Rendered(NamedTuple):
    """One email's parts, ready to be composed or shown."""

    subject: str
    html: str
    text: str
    size: SizeReport


class Links(NamedTuple):
    """What makes the links of an email: who serves them and what signs them."""

    public_url: str
    token_key: bytes

    def unsubscribe(self, recipient: bytes, topic: str) -> str:
        """Return the link that unsubscribes a recipient from a topic, or from all (`*`)."""
        return f"{self.public_url}/v1/unsubscribe/{tokens.sign_unsubscribe(self.token_key, recipient, topic)}"

    def click(self, decision_id: str, url: str, slot: str = "") -> str:
        """Return the tracking link of a target."""
        token = tokens.sign_click(self.token_key, decision_id, url, slot)
        return f"{self.public_url}/c/{token}?u={quote(url, safe='')}"

    def pixel(self, decision_id: str) -> str:
        """Return the link of the open pixel."""
        return f"{self.public_url}/o/{tokens.sign_open(self.token_key, decision_id)}.gif"


def render_email(
    renderer: Renderer, campaign: Campaign, answer: Answer, profile: Profile | None, *, links: Links,
    recipient: bytes | None, text_of_html: Callable[[str], str], track: bool = True,
) -> Rendered:  # fmt: skip
    """Return the whole email of a decided answer.

    Links are tracked and carry the campaign's UTM tags, and a pixel sees opens, unless `track` is
    off or the answer stands for no decision: a preview shows the links as they are.

    Args:
        renderer: The project's templates.
        campaign: The campaign; its `template` is the email, `<template>.txt` its text part if the
            project has one, and its subject is a Liquid text.
        answer: What each slot shows.
        profile: The person, for what templates say of them; None in a fallback.
        links: Makes links.
        recipient: The recipient's leaf, for the unsubscribe link; None if nobody was named: then
            the link leads nowhere, since there is nobody to unsubscribe.
        text_of_html: Makes the text part where there is no template for it.
        track: Whether links and opens are tracked.

    Raises:
        DefinitionError: A template failed on this data or went over a limit (E140), or the campaign
            has no template (E182).
    """
    if not campaign.template:
        raise DefinitionError("E182", f"campaign `{campaign.name}` has no template", where=campaign.where,
                              fix='name one: template = "email"')  # fmt: skip
    topic = campaign.topic or tokens.ALL_TOPICS
    unsubscribe_url = links.unsubscribe(recipient, topic) if recipient is not None else "#"
    data: dict[str, Any] = {
        "campaign": campaign.name,
        "slots": {
            name: {"items": content.items, "html": Html(content.html)}
            for name, content in answer.slots.items()
        },
        "traits": dict(profile.traits) if profile is not None else {},
        "preheader": "",
        "as_of_ms": profile.as_of_ms if profile is not None else 0,
        "unsubscribe_url": unsubscribe_url,
    }
    data["preheader"] = renderer.render_text(campaign.preheader, data).strip()
    subject = " ".join(renderer.render_text(campaign.subject, data).split())
    html = renderer.render(campaign.template, data)
    text_template = f"{campaign.template}.txt"
    # The text part is made of the links as they are: a person reads them there.
    text = (
        renderer.render(text_template, data)
        if text_template in renderer.names()
        else text_of_html(html)
    )
    if track and answer.decision_id:
        utm = _utm(campaign)
        slots = _slots_by_url(answer, utm)
        html = instrument_html(
            html,
            click=lambda url, _: links.click(answer.decision_id, url, slots.get(url, "")),
            pixel_url=links.pixel(answer.decision_id),
            utm=utm,
            exempt=(links.public_url + "/v1/unsubscribe/",),
        )
    return Rendered(subject, html, text, size_report(html))


def _slots_by_url(answer: Answer, utm: Mapping[str, str]) -> dict[str, str]:
    """Return which slot shows which target, as the target stands in the email."""
    return {
        with_params(url, utm): name
        for name, content in answer.slots.items()
        for item in content.items
        if isinstance(url := item.get("url"), str)
    }


def _utm(campaign: Campaign) -> Mapping[str, str]:
    return {
        "utm_source": "penstock",
        "utm_medium": "email",
        "utm_campaign": campaign.name,
        **campaign.utm,
    }
