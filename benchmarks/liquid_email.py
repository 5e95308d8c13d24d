"""One 60-line email rendered for many people: compiled, interpreted, and by python-liquid as it comes."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from liquid import Environment

from benchmarks.measure import Row, Sample, compare, interleaved, like_the_server, row, timed
from benchmarks.workload import SEED, Sizes
from penstock.adapters.content.liquid import LiquidRenderer
from penstock.adapters.content.liquid.filters import FILTERS

FLOOR = 8_000
GOAL = 12_000
PEOPLE = 200
ITEMS = 5
AS_OF_MS = 1_795_000_000_000

EMAIL = """\
<!doctype html>
<html lang="{{ traits.language | default: "en" }}">
<head>
  <meta charset="utf-8"><meta name="viewport" content="width=device-width">
  <title>{{ shop.name }}: {{ campaign }}</title>
</head>
<body style="margin:0;background:#eff3f1">
<div style="display:none">{{ preheader }}</div>
<table role="presentation" width="600" align="center" cellpadding="0" cellspacing="0">
  <tr><td style="padding:28px 32px;letter-spacing:4px">{{ shop.name | upcase }}</td></tr>
  <tr><td style="padding:0 32px 18px 32px;font:16px/24px Helvetica,Arial,sans-serif">
    {% if traits.first_name %}Hello {{ traits.first_name }},{% else %}Hello,{% endif %}
    {% if last_order %}
    thank you for your order of {{ last_order.at | instant: "%-d %B" }} ({{ last_order.total | money }}).
    {% elsif visits > 3 %}
    you came back {{ visits }} times: here is what you looked at.
    {% else %}
    welcome. This is what others like.
    {% endif %}
  </td></tr>
  {% assign shown = 0 %}
  {% for item in items %}
  {% if item.stock > 0 or item.preorder %}
  {% assign shown = shown | plus: 1 %}
  <tr><td style="padding:10px 32px;border-top:1px solid #d9e0dc">
    <a href="{{ item.url }}"><img src="{{ item.image_url }}" alt="{{ item.title }}" width="72"></a>
    <a href="{{ item.url }}" style="color:#0b5d4e"><b>{{ item.title }}</b></a> by {{ item.brand }}
    {% if item.was %}
    <s>{{ item.was | money }}</s> <b style="color:#b3261e">{{ item.price | money }}</b>
    {% else %}
    <b>{{ item.price | money }}</b>
    {% endif %}
    {% case item.stock %}
    {% when 0 %}<i>on order</i>
    {% when 1 %}<i>the last one</i>
    {% when 2 %}<i>the last two</i>
    {% endcase %}
    {% unless forloop.last %}<hr>{% endunless %}
  </td></tr>
  {% endif %}
  {% else %}
  <tr><td>Nothing today.</td></tr>
  {% endfor %}
  {% if coupon and shown > 1 %}
  <tr><td style="padding:24px 32px;background:#fff4d6">
    {{ coupon.percent }} % off with <b>{{ coupon.code }}</b> until {{ coupon.until | instant: "%A, %-d %B %Y" }}
  </td></tr>
  {% endif %}
  <tr><td style="padding:24px 32px">
    {{ points }} {{ points | plural: "point", "points" }}
    {% if points >= 100 %}make you a {{ traits.tier | capitalize }} member{% endif %}
  </td></tr>
  <tr><td style="padding:18px 32px;font-size:13px;color:#5a6963">
    You get this because you asked {{ shop.name }} for offers. {{ shop.address }}, {{ "now" | date: "%Y" }}<br>
    <a href="{{ unsubscribe_url }}">Unsubscribe</a>
  </td></tr>
</table>
</body>
</html>
"""


def data_of(person: int) -> dict[str, Any]:
    """Return what the email is filled with for one person, decided by the seed."""
    dice = random.Random(f"{SEED} {person}")
    items = [
        {
            "title": f'Teapot No. {dice.randrange(2_000)} "Earl\'s" & more',
            "brand": dice.choice(["Brown & Co", "Kiln", "Ogawa"]),
            "url": f"https://shop.example/p/{dice.randrange(2_000)}?ref=mail&c={person}",
            "image_url": f"https://img.shop.example/{dice.randrange(2_000)}.jpg",
            "price": [dice.randrange(500, 20_000), "GBP"],
            "was": [dice.randrange(20_000, 30_000), "GBP"] if dice.random() < 0.3 else None,
            "stock": dice.choice([0, 1, 2, 9, 40]),
            "preorder": dice.random() < 0.5,
        }
        for _ in range(ITEMS)
    ]
    data = {
        "campaign": "spring", "preheader": "New teapots, and those you looked at",
        "shop": {"name": "The Shop", "address": "1 Example Street, London"},
        "traits": {"tier": "silver", "language": "en"},
        "items": items, "visits": dice.randrange(10), "points": dice.randrange(300),
        "as_of_ms": AS_OF_MS, "unsubscribe_url": f"https://mail.shop.example/v1/unsubscribe/{person}",
    }  # fmt: skip
    if dice.random() < 0.7:
        data["traits"]["first_name"] = dice.choice(["Ada", "Grace", "Zoë", "D'Arcy"])
    if dice.random() < 0.4:
        at = AS_OF_MS - dice.randrange(30) * 86_400_000
        data["last_order"] = {"at": at, "total": [dice.randrange(1_000, 90_000), "GBP"]}
    if dice.random() < 0.5:
        data["coupon"] = {"percent": 10, "code": "SPRING", "until": AS_OF_MS + 7 * 86_400_000}
    return data


def renderers(folder: Path) -> tuple[LiquidRenderer, LiquidRenderer]:
    """Return a renderer that compiles and one that interprets, of the same folder."""
    (folder / "email.liquid").write_text(EMAIL, encoding="utf-8")
    return LiquidRenderer(folder, compile_after=0), LiquidRenderer(folder, compile_after=None)


def as_it_comes() -> Any:
    """Return the email in python-liquid alone: no limits, the same filters, a `date` that is a clock."""
    environment = Environment(autoescape=True)
    environment.filters.update(FILTERS)
    return environment.from_string(EMAIL)


def measure(sizes: Sizes) -> list[Row]:
    """Measure whole emails a second and core, one after the other for different people."""
    people = [data_of(person) for person in range(PEOPLE)]
    rounds = max(1, sizes.events // 120_000 * 10)
    with tempfile.TemporaryDirectory() as folder:
        compiled, interpreted = renderers(Path(folder))
        peer = as_it_comes()
        for data in people:
            assert compiled.render("email", data) == interpreted.render("email", data), "the same"
        like_the_server()

        def rendered(renderer: LiquidRenderer, times: int) -> Sample:
            def work() -> None:
                for _ in range(times):
                    for data in people:
                        renderer.render("email", data)

            return timed(times * PEOPLE, work)

        def by_peer() -> Sample:
            return timed(PEOPLE, lambda: [peer.render(**data) for data in people])

        samples = interleaved(
            sizes.rounds,
            {
                "compiled": lambda: rendered(compiled, rounds),
                "interpreted": lambda: rendered(interpreted, 1),
                "python-liquid": by_peer,
            },
        )
    state = f"{ITEMS} items, {len(EMAIL.splitlines())} lines"
    ours = row("liquid", "60-line Liquid email", state, "renders", samples["compiled"], floor=FLOOR, goal=GOAL,
               note="compiled to Python, all limits on")  # fmt: skip
    before = row("liquid", "the same, interpreted", state, "renders", samples["interpreted"],
                 note="the same limits; what a template that cannot be compiled costs")  # fmt: skip
    peer_row = row("liquid", "the same, python-liquid alone", state, "renders",
                   samples["python-liquid"], note="without limits")  # fmt: skip
    return [
        compare(ours, interpreted=before, **{"python-liquid": peer_row}),
        before,
        peer_row,
    ]
