"""The figures as one picture: how much of its floor each reaches, and where its goal is."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from benchmarks.measure import CEILINGS, Row
from benchmarks.report import Results

WIDTH, LEFT, RIGHT = 860, 410, 60
TOP, STEP, BAR = 78, 26, 14
MOST = 2.0
"""Times the floor that fit; what is longer ends in an arrow."""
NAME_MAX = 54

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #14211c; }
  .title { font-size: 15px; font-weight: 650; }
  .small { font-size: 12px; fill: #50605a; }
  .kept { fill: #0b5d4e; } .missed { fill: #a8482f; }
  .floor { stroke: #14211c; stroke-width: 1.5; } .goal { stroke: #50605a; stroke-width: 2; }
  .grid { stroke: #d9e0dc; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e9f0ed; } .small { fill: #a9b8b1; }
    .kept { fill: #6fd3ba; } .missed { fill: #e08f79; }
    .floor { stroke: #e9f0ed; } .goal { stroke: #a9b8b1; } .grid { stroke: #3c4d46; }
  }
"""


class Bar(NamedTuple):
    """One floor, as a share of it."""

    name: str
    reached: float
    """1 is the floor itself."""
    goal: float
    """In times of the floor; 0 if there is none."""
    said: str
    """What was measured, for those who don't see the bar."""


def bars(results: Results) -> list[Bar]:
    """Return a bar for every floor of a run, absolute or beside a peer, in the order of the table."""
    found: list[Bar] = []
    for row in [*results.rows, *results.kept]:
        if row.floor:
            found.append(_absolute(row))
        for peer, (floor, goal) in row.against.items():
            if peer in row.beside:
                ratio = row.beside[peer][1]
                found.append(Bar(_name(row, peer), ratio / floor, goal / floor,
                                 f"{ratio:.2f} x {peer}, floor {floor:g} x"))  # fmt: skip
    return found


def _absolute(row: Row) -> Bar:
    if row.unit in CEILINGS:
        return Bar(_name(row), row.floor / max(row.reached, 1e-9), row.floor / row.goal if row.goal else 0.0,
                   f"{row.reached:.3g} {row.unit}, at most {row.floor:.3g}")  # fmt: skip
    return Bar(_name(row), row.rate / row.floor, row.goal / row.floor if row.goal else 0.0,
               f"{row.rate:,.0f} {row.unit}/s, floor {row.floor:,.0f}")  # fmt: skip


def _name(row: Row, peer: str = "") -> str:
    """Return what stands before a bar: short enough to fit."""
    beside = f", beside {peer}" if peer else ""
    text = row.work.partition(":")[0]
    if row.state != "zipf, hot":
        text = f"{text} ({row.state})"
    room = NAME_MAX - len(beside)
    return (text if len(text) <= room else f"{text[: room - 1].rstrip(' ,')}…") + beside


def svg(results: Results) -> str:
    """Return the picture: no script, readable in the dark, and with every figure in words."""
    found = bars(results)
    kept = sum(one.reached >= 1 for one in found)
    title = f"Measured on {results.date}: {kept} of {len(found)} floors are kept"
    height = TOP + STEP * len(found) + 20
    scale = (WIDTH - LEFT - RIGHT) / MOST
    lines = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title desc">'),
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(". ".join(f"{one.name}: {one.said}" for one in found))}.</desc>',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        ('<text class="small" x="12" y="44">Bars are times of the floor, the line at 1; the short mark is the goal. '
        "Longer is better, of times and of memory too.</text>"),
    ]  # fmt: skip
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0):
        x = LEFT + scale * tick
        kind = "floor" if tick == 1.0 else "grid"
        lines += [
            f'<path class="{kind}" d="M{x:.1f} {TOP - 6}V{height - 14}"/>',
            f'<text class="small" x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">{tick:g}</text>',
        ]
    for place, one in enumerate(found):
        lines += _drawn(one, TOP + STEP * place, scale)
    return "\n".join([*lines, "</svg>", ""])


def _drawn(one: Bar, y: int, scale: float) -> list[str]:
    middle = y + BAR / 2 + 4.5
    end = LEFT + scale * min(one.reached, MOST)
    kind = "kept" if one.reached >= 1 else "missed"
    shape = f"M{LEFT} {y}H{end:.1f}v{BAR}H{LEFT}z"
    if one.reached > MOST:
        shape = f"M{LEFT} {y}H{end - 7:.1f}l7 {BAR / 2}l-7 {BAR / 2}H{LEFT}z"
    found = [
        f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(one.name)}</text>',
        f'<path class="{kind}" d="{shape}"><title>{escape(one.said)}</title></path>',
        f'<text class="small" x="{end + 6:.1f}" y="{middle}">{one.reached:.2f}</text>',
    ]
    if 0 < one.goal <= MOST:
        x = LEFT + scale * one.goal
        found.append(f'<path class="goal" d="M{x:.1f} {y - 3}v{BAR + 6}"/>')
    return found
