"""The pages of the reference that authors of emails need: slots and audiences, templates and campaigns."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from reference_markdown import page, table

from penstock.adapters.content.liquid.filters import FILTERS
from penstock.core.decision import campaign, sources
from penstock.dsl import audiences, slots
from penstock.templates import IN_EMAILS, IN_SLOTS

SLOTS = (slots.slot, slots.ranked, slots.epsilon)
RULES = (slots.rule, slots.source, slots.candidate_source)
PREDICATES = (slots.feature, slots.trait, slots.item, slots.permitted, audiences.subscribed)


def slots_page() -> str:
    """Return what authors call in `slots.py` and `audiences.py`: parameters, defaults and meaning."""
    shipped = [getattr(slots, name) for name in sorted(sources.SHIPPED)]

    def lines() -> Iterator[str]:
        for title, calls in (
            ("Slots", SLOTS), ("Candidate sources", shipped), ("Rules, and sources of your own", RULES),
            ("Audiences", (audiences.audience,)), ("What is compared", PREDICATES),
        ):  # fmt: skip
            yield f"## {title}\n"
            for one in calls:
                yield from call_lines(one)

    intro = (
        "What `slots.py` imports from `penstock.dsl.slots`, and `audiences.py` from `penstock.dsl.audiences` as well. "
        "Names of features, traits and topics are checked when the project is loaded. Predicates compare with `==`, "
        "`!=`, `<`, `<=`, `>` and `>=`, and are joined with `&`, `|` and `~`, each comparison in parentheses. How to "
        "use them: [a slot with a fallback](../guides/slots.md)."
    )
    return page("Slots and audiences", intro, lines())


def call_lines(function: Callable[..., Any]) -> Iterator[str]:
    """Yield how a function is called and what it means, with a table of its parameters."""
    doc = inspect.cleandoc(function.__doc__ or "")
    if not doc:
        raise SystemExit(f"`{function.__name__}` has no docstring")
    text = re.split(r"^(?:Args|Raises|Returns):$", doc, maxsplit=1, flags=re.MULTILINE)[0].strip()
    text = re.sub(r"^Return:? ", "", text)
    yield f"### `{function.__name__}`\n"
    yield f"{text[0].upper()}{text[1:]}\n"
    meanings = arguments(doc)
    rows = [
        (f"`{parameter.name}`", default_of(parameter), meanings.pop(parameter.name, ""))
        for parameter in inspect.signature(function).parameters.values()
    ]
    if meanings:
        raise SystemExit(
            f"`{function.__name__}` describes {sorted(meanings)}, which it does not take"
        )
    silent = [name for name, _, meaning in rows if not meaning]
    if silent:
        raise SystemExit(f"`{function.__name__}` does not say what {silent} mean")
    if rows:
        yield from table(("Parameter", "Default", "Meaning"), iter(rows))


def arguments(doc: str) -> dict[str, str]:
    """Return what a docstring says of each argument, by name."""
    section = re.search(r"^Args:\n((?:(?: {4}.*)?\n?)+)", doc, re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section.group(1).splitlines() if section else ():
        entry = re.match(r" {4}\**(\w+): (.*)", line)
        if entry:
            name, found[entry.group(1)] = entry.groups()
        elif line.strip():
            found[name] += f" {line.strip()}"
    return found


def default_of(parameter: inspect.Parameter) -> str:
    """Return a parameter's default as an author would write it."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "any number"
    if parameter.kind is parameter.VAR_KEYWORD:
        return "any, by name"
    if parameter.default is parameter.empty:
        return "required"
    if parameter.default == slots.popular.__kwdefaults__["over"]:
        return "`hours(24)`"
    if parameter.default is slots.anything_goes:
        return "nothing is wrong"
    if parameter.default in ("", (), None):
        return "none"
    return f"`{parameter.default!r}`".replace("'", '"')


def email_page() -> str:
    """Return what templates are given, the filters that are ours, and the keys of a campaign's file."""

    def lines() -> Iterator[str]:
        yield "## In a whole email\n"
        yield "`content/<template>`, its text part `content/<template>.txt.liquid`, and a campaign's `subject` and `preheader`.\n"
        yield from named(IN_EMAILS)
        yield "## In a slot\n"
        yield "`content/<slot>.liquid`, or the template that `render` or `block` names. It sees no person.\n"
        yield from named(IN_SLOTS)
        yield "## Filters\n"
        yield (
            "Besides [Liquid's own](https://shopify.github.io/liquid/). Where a filter can't take a value a slot shows its "
            "static content instead, and a whole email is not sent (E140). `date` is Liquid's, always in UTC; its `now` is `as_of_ms`.\n"
        )
        for name, function in FILTERS.items():
            yield f"### `{name}`\n"
            text = inspect.cleandoc(function.__doc__ or "").removeprefix("Return ")
            yield f"{text[0].upper()}{text[1:]}\n"
        yield "## Keys of `campaigns/<name>.toml`\n"
        rows = ((f"`{key}`", default, text) for key, (default, text) in campaign.KEYS.items())
        yield from table(("Key", "Default", "Meaning"), rows)

    intro = (
        "What templates are given, and what a campaign's file may say. A name that is not here is an error with file "
        "and line ([E197](errors.md#e197), [E158](errors.md#e158)). How to use them: [write an "
        "email](../guides/write-an-email.md)."
    )
    return page("Templates and campaigns", intro, lines())


def named(values: dict[str, str]) -> Iterator[str]:
    """Yield a table of names and what they are."""
    yield from table(("Name", "What it is"), ((f"`{name}`", text) for name, text in values.items()))
