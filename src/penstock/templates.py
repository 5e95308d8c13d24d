"""A project's templates: made ready to render, and checked against what the project defines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.adapters.content.inline import inline_css
from penstock.adapters.content.liquid import ANY, Each, LiquidRenderer, Shape
from penstock.adapters.content.liquid.masking import LIQUID
from penstock.adapters.content.mjml import SUFFIXES, broken_at, compile_mjml, misspelled
from penstock.core.decision.campaign import Campaign
from penstock.core.decision.slot import Slot, template_of
from penstock.core.decision.sources import SHIPPED
from penstock.core.errors import DefinitionError
from penstock.core.toml_lines import Places, lines_of
from penstock.ports.renderer import Html
from penstock.project import Project

UNSUBSCRIBE = "unsubscribe_url"
TEXTS = ("subject", "preheader")
"""The Liquid texts of a campaign's file."""

IN_EMAILS = {
    "slots": "What was decided, by the slot's name: `slots.hero.html` is its block as it was rendered, "
    "`slots.hero.items` the list of what it shows, each with its fields: `slots.hero.items[0].title`.",
    "traits": "What is known of the person and may be shown, by the trait's name: `traits.first_name`. "
    "Empty for somebody unknown: write a `default`.",
    "preheader": "The campaign's `preheader`, rendered. Empty in the preheader itself.",
    UNSUBSCRIBE: "The link that ends the campaign's topic for this address. Every email must show it.",
    "campaign": "The campaign's name.",
    "as_of_ms": "The instant that the profile was read as of, in milliseconds: `{{ as_of_ms | instant }}`.",
}
"""What a whole email is given, and its subject and preheader; see `render_email`."""

IN_SLOTS = {
    "items": "The list of what the slot shows, at most `limit`; each has the fields of an item, or of `content`.",
    "item": "The first of them.",
    "slot": "The slot's name.",
    "campaign": "The campaign's name.",
}
"""What the template of a slot is given, and that of a block."""

GUIDE = "docs/guides/write-an-email.md"

_BODY_ENDS = re.compile(r"</mj-body|</body", re.IGNORECASE)


def make_renderer(project: Project, content: Path | None = None) -> LiquidRenderer:
    """Return the renderer of a project's templates, all of them parsed.

    Args:
        project: The project.
        content: The folder of its templates; by default the project's own.

    Raises:
        DefinitionError: A template does not parse (E141) or its MJML does not compile.
    """

    def prepare_html(name: str, source: str) -> str:
        return inline_css(name, compile_mjml(name, source) if ".mjml" in name else source)

    return LiquidRenderer(content or project.root / "content", prepare_html=prepare_html)


def require_templates(project: Project) -> None:
    """Refuse a project with a template that would show a hole, before it serves.

    Raises:
        DefinitionError: The first of `template_faults`.
    """
    for error in template_faults(project):
        raise error


def template_faults(project: Project, *, broken: bool = False) -> list[DefinitionError]:
    """Return what is wrong with a project's templates, each with file and line.

    A name that is written wrongly is no error of Liquid or MJML: it shows nothing, in every email.

    Args:
        project: The project, as its folder holds it.
        broken: Whether its slots or campaigns are: then templates are parsed, and names in them are
            not looked up.
    """
    faults = list(_misspelled(project))
    try:
        renderer = make_renderer(project)
    except DefinitionError as error:
        return [*faults, _located(project, error)]
    if broken:
        return faults
    for campaign in project.campaigns.values():
        faults += _of_campaign(project, campaign, renderer)
    for slot in project.slots.values():
        faults += _of_slot(project, slot, renderer)
    # A template that two campaigns or slots share is told of once.
    once: dict[tuple[str, str, str], DefinitionError] = {}
    for error in faults:
        once.setdefault((error.code, error.where, error.what.partition(" shows ")[2]), error)
    return list(once.values())


def _located(project: Project, error: DefinitionError) -> DefinitionError:
    """Return an error about a file of MJML with its line, which the compiler does not say."""
    file = f"content/{error.where}"
    if error.code == "E144" and file in project.files:
        error.where = f"{file}:{broken_at(_blanked(project.files[file]))}"
    return error


def _blanked(raw: bytes) -> str:
    """Return a source without its Liquid tags, in as many lines."""
    source = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    return LIQUID.sub(lambda tag: re.sub(r"[^\n]", " ", tag.group()), source)


def _misspelled(project: Project) -> Iterator[DefinitionError]:
    for file, raw in project.files.items():
        if not (file.startswith("content/") and file.endswith(SUFFIXES)):
            continue
        for one in misspelled(_blanked(raw)):
            fix = (
                f"did you mean `{one.near}`?"
                if one.near
                else "remove it; MJML would show nothing of it"
            )
            yield DefinitionError("E144", f"MJML has no {one.what}", where=f"{file}:{one.line}", fix=fix)  # fmt: skip


def _of_campaign(
    project: Project, campaign: Campaign, renderer: LiquidRenderer
) -> Iterator[DefinitionError]:
    shape = _of_emails(project, campaign)
    owner = f"campaign `{campaign.name}`"
    text = project.files.get(campaign.where, b"").decode("utf-8", "replace")
    places = Places(campaign.where, lines_of(text))
    for name in TEXTS:
        source = getattr(campaign, name)
        line = places.lines.get((name,), 1)
        template = f"{campaign.where}.{name}.txt"
        try:
            renderer.add(template, source, campaign.where, line)
        except DefinitionError as error:
            yield error
            continue
        yield from _misnamed(project, renderer, template, shape, owner)
    if not campaign.template:
        return
    for template in (campaign.template, f"{campaign.template}.txt"):
        if template in renderer.names():
            yield from _misnamed(project, renderer, template, shape, owner)
            try:
                renderer.render(template, _sample(project, campaign))
            except DefinitionError as error:
                yield error
    if not renderer.uses(campaign.template, UNSUBSCRIBE):
        file = renderer.file(campaign.template)
        yield DefinitionError("E197", f"{owner} shows no link to unsubscribe", where=f"{file}:{_body_end(project, file)}",
                              fix='add <a href="{{ unsubscribe_url }}">Unsubscribe</a> to the template')  # fmt: skip


def _of_slot(project: Project, slot: Slot, renderer: LiquidRenderer) -> Iterator[DefinitionError]:
    item = _of_items(project, slot)
    shape: dict[str, Shape] = {**dict.fromkeys(IN_SLOTS, ANY), "items": Each(item), "item": item}
    blocks = [source.args.get("block") for source in (*slot.candidates, *slot.fallback)]
    for template in dict.fromkeys([template_of(slot), *blocks]):
        if template in renderer.names():
            yield from _misnamed(project, renderer, template, shape, f"slot `{slot.name}`")


def _misnamed(
    project: Project, renderer: LiquidRenderer, template: str, shape: dict[str, Shape], owner: str
) -> Iterator[DefinitionError]:
    features = {feature.name for feature in project.plan.features} | {"features"}
    for one in renderer.misnamed(template, shape):
        # The last name that was written may be right, and yet not be one that a template knows.
        asked = one.name.rpartition(".")[2]
        fix = (
            f"features are no template values: show one through a slot, with a rule over it; see {GUIDE}"
            if asked in features else
            f"did you mean `{one.near}`?" if one.near else
            "name a slot of the campaign, a declared trait or a field of its items, or remove it"
        )  # fmt: skip
        yield DefinitionError("E197", f"{owner} shows `{one.name}`, which nothing defines",
                              where=one.where, fix=fix)  # fmt: skip


def _of_emails(project: Project, campaign: Campaign) -> dict[str, Shape]:
    """Return what a campaign's template is given; see `render_email`."""
    slots = {
        slot.name: {"items": Each(_of_items(project, slot)), "html": ANY} for slot in campaign.slots
    }
    kept = project.catalog.traits_undeclared == "keep"
    return {
        **dict.fromkeys(IN_EMAILS, ANY),
        "slots": slots,
        "traits": ANY if kept else dict.fromkeys(project.catalog.traits, ANY),
    }


def _of_items(project: Project, slot: Slot) -> Shape:
    """Return the fields that what a slot shows may have: those of items, and of content that it names."""
    fields = {name for name in project.catalog.items if not slot.show or name in slot.show}
    for source in (*slot.candidates, *slot.fallback):
        if source.kind not in SHIPPED:
            return ANY  # a source of the author's own may propose content with any fields
        fields |= set(source.args.get("content", {}))
    return dict.fromkeys(sorted(fields), ANY)


def _sample(project: Project, campaign: Campaign) -> dict[str, Any]:
    return {
        "campaign": campaign.name, "preheader": "", "as_of_ms": 0, UNSUBSCRIBE: "#",
        "slots": {slot.name: {"items": [], "html": Html("")} for slot in campaign.slots},
        "traits": dict.fromkeys(project.catalog.traits, ""),
    }  # fmt: skip


def _body_end(project: Project, file: str) -> int:
    """Return the line where an email's body ends, which is where such a link stands."""
    source = project.files.get(file, b"").decode("utf-8", "replace").rstrip("\n")
    found = _BODY_ENDS.search(source)
    return source.count("\n", 0, found.start() if found else len(source)) + 1
