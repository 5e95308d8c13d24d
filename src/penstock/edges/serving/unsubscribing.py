"""Unsubscribing by one click: its hot route, and the pages that links in emails lead to."""

from __future__ import annotations

from html import escape

from penstock.core.errors import PenstockError
from penstock.core.tokens import ALL_TOPICS, Unsubscribe
from penstock.edges.asgi import Answer
from penstock.edges.route import Request, Route
from penstock.flows.feedback import Feedback
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics

UNSUBSCRIBE = "/v1/unsubscribe/{token}"

NO_STORE = (b"cache-control", b"no-cache, no-store, max-age=0, must-revalidate")
HTML = (b"content-type", b"text/html; charset=utf-8")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem}}
button{{font:inherit;padding:.6rem 1.2rem}}</style></head>
<body><h1>{title}</h1><p>{text}</p>{form}</body></html>"""


def unsubscribe_route(feedback: Feedback, clock: Clock, metrics: Metrics) -> Route:
    """Return the hot route of one-click unsubscribes: they are never refused, so each is to cost little."""

    async def unsubscribe(request: Request) -> Answer:
        wish = await feedback.unsubscribe(request.param)
        rest = "" if wish.topic == ALL_TOPICS else button(
            feedback.all_topics(wish), "Unsubscribe from all emails"
        )  # fmt: skip
        return page(200, "You are unsubscribed", standing(feedback, wish), rest)

    return Route("POST", UNSUBSCRIBE, unsubscribe, clock=clock, metrics=metrics)


def page(status: int, title: str, text: str, form: str = "") -> Answer:
    """Return a page of a title, a text and a form, the latter two as HTML."""
    body = _PAGE.format(title=escape(title), text=text, form=form)
    return Answer(status, body.encode(), (HTML, NO_STORE))


def named(topic: str) -> str:
    """Return what a topic's emails are called in a sentence."""
    return "all emails" if topic == ALL_TOPICS else f"emails about “{escape(topic)}”"


def button(token: str, text: str) -> str:
    """Return a form that posts to a token's page, which is beside this one."""
    return (
        f'<form method="post" action="{escape(token)}"><button type="submit">{text}</button></form>'
    )


def standing(feedback: Feedback, wish: Unsubscribe) -> str:
    """Return what a recipient has refused so far, as a sentence."""
    try:
        refused = feedback.refused(wish)
    except PenstockError:
        return ""  # the page is for the button: it never fails for want of a sentence
    if not refused:
        return ""
    if ALL_TOPICS in refused:
        return "You get no emails from us any more."
    listed = ", ".join(f"“{escape(topic)}”" for topic in refused)
    return f"You get no emails about {listed} any more; other emails go on."
