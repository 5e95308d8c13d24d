"""What differs between two versions of a project's definitions, for people and for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.compat import check_all
from penstock.core.catalog.fields import EventType, Field
from penstock.core.decision import predicate
from penstock.core.decision.audience import Audience
from penstock.core.decision.campaign import Campaign
from penstock.core.decision.slot import Slot, reads
from penstock.core.decision.slot import plain as plain_slot
from penstock.core.definitions.consent_effects import consent_effects
from penstock.core.definitions.facts import feature_facts, privacy_facts, sentence
from penstock.core.errors import DefinitionError
from penstock.core.feature.plan import Plan

BREAKS_NAMED: Final = 3


class Declared(NamedTuple):
    """What one version of a project defines."""

    plan: Plan
    catalog: Catalog
    slots: Mapping[str, Slot]
    audiences: Mapping[str, Audience]
    campaigns: Mapping[str, Campaign]
    files: Mapping[str, bytes]
    """Of its content, by their paths: templates and parts of them."""
    rules: Mapping[str, Any]
    """The settings that definitions go by, by their names."""
    fingerprint: str
    """What the leaves depend on."""


class Change(msgspec.Struct, frozen=True):
    """One thing that is `new`, `changed` or `dropped`."""

    how: str
    what: str
    """`feature`, `event`, `trait`, `item`, `slot`, `audience`, `campaign`, `content` or `setting`."""
    name: str
    details: tuple[str, ...]
    where: str = ""


class Effect(msgspec.Struct, frozen=True):
    """One effect on people's privacy: where, and what changes."""

    path: str
    what: str
    wider: bool
    """Whether more is kept, for longer, for more purposes, with less consent or less protected than
    before."""


class Doubt(msgspec.Struct, frozen=True):
    """Something that goes on to work, and may not mean what it did."""

    owner: str
    what: str
    where: str


class Changes(msgspec.Struct, frozen=True):
    """All that differs between what serves and what may come to serve."""

    changes: tuple[Change, ...]
    effects: tuple[Effect, ...]
    doubts: tuple[Doubt, ...]
    breaks: tuple[tuple[str, str], ...]
    """Events that no longer fit what their senders send: path and reason."""
    unchanged_features: int
    rebuilds: bool
    """Whether there is to be a new set of leaves, folded from the whole log."""

    def named(self, what: str, how: str) -> list[str]:
        """Return the names of what changed in a way."""
        return [one.name for one in self.changes if (one.what, one.how) == (what, how)]


def changes_of(old: Declared, new: Declared, mode: str = "backward") -> Changes:
    """Return what differs.

    Args:
        old: What serves.
        new: What may come to serve.
        mode: How events must fit: `backward`, `forward`, `full`, or `none` for not at all.

    Laws:
        nothing differs between a version and itself.
    """
    changes = [
        *_features(old.plan, new.plan),
        *_events(old.catalog, new.catalog),
        *_fields("trait", old.catalog.traits, new.catalog.traits),
        *_fields("group trait", old.catalog.group_traits, new.catalog.group_traits),
        *_fields("item", old.catalog.items, new.catalog.items),
        *_compared("slot", old.slots, new.slots),
        *_compared("audience", old.audiences, new.audiences),
        *_compared("campaign", old.campaigns, new.campaigns),
        *_contents(old.files, new.files),
        *_rules(old.rules, new.rules),
    ]
    alike = [feature.name for feature in old.plan.features
             if _same_feature(feature.name, old.plan, new.plan)]  # fmt: skip
    breaks = () if mode == "none" else tuple(
        (found.path, found.what) for found in check_all(old.catalog.event_types, new.catalog.event_types, mode)
    )  # fmt: skip
    return Changes(
        changes=tuple(changes),
        effects=tuple(_effects(old, new)),
        doubts=tuple(_doubts(old, new)),
        breaks=breaks,
        unchanged_features=len(alike),
        rebuilds=old.fingerprint != new.fingerprint,
    )


def require_compatible(old: Declared, new: Declared, mode: str) -> None:
    """Refuse definitions that break the events of what serves.

    Args:
        old: What serves.
        new: What may come to serve.
        mode: `backward`, `forward`, `full`, or `none` to refuse nothing.

    Raises:
        DefinitionError: They do (E195); the first reasons are named.
    """
    breaks = (
        () if mode == "none" else check_all(old.catalog.event_types, new.catalog.event_types, mode)
    )
    if breaks:
        named = "; ".join(f"{found.path} {found.what}" for found in breaks[:BREAKS_NAMED])
        more = f"; and {len(breaks) - BREAKS_NAMED} more" if len(breaks) > BREAKS_NAMED else ""
        raise DefinitionError("E195", f"events no longer fit what their senders send: {named}{more}", where="events.py",
                              fix="keep what senders go on sending; or, when they have changed too, run "
                              "`penstock apply --allow-breaks`")  # fmt: skip


# -- features


def _facts(plan: Plan, name: str) -> dict[str, str]:
    return feature_facts(plan.feature(name), plan.needs(name))


def _same_feature(name: str, old: Plan, new: Plan) -> bool:
    if name not in {feature.name for feature in new.features}:
        return False
    alike = _facts(old, name) == _facts(new, name)
    return alike and old.keys_of(name) == new.keys_of(name)


def _features(old: Plan, new: Plan) -> Iterator[Change]:
    before = {feature.name: feature for feature in old.features}
    after = {feature.name: feature for feature in new.features}
    for name, feature in after.items():
        if name not in before:
            yield Change("new", "feature", name, (sentence(_facts(new, name)),), feature.place)
        elif not _same_feature(name, old, new):
            details = _differing(_facts(old, name), _facts(new, name))
            yield Change("changed", "feature", name,
                         details or ("is computed from fields that are kept in another way",), feature.place)  # fmt: skip
    for name in before:
        if name not in after:
            yield Change("dropped", "feature", name, (sentence(_facts(old, name)),))


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        f"{name}: {old.get(name) or 'nothing'} → {new.get(name) or 'nothing'}"
        for name in names
        if old.get(name) != new.get(name)
    )


# -- events, traits and items


def _events(old: Catalog, new: Catalog) -> Iterator[Change]:
    for name in [*old.event_types, *(one for one in new.event_types if one not in old.event_types)]:
        before, after = old.event_types.get(name), new.event_types.get(name)
        if before is None and after is not None:
            yield Change("new", "event", name, (_field_list(after.fields),))
        elif before is not None and after is None:
            yield Change("dropped", "event", name, (_field_list(before.fields),))
        elif (
            before is not None and after is not None and (details := _event_details(before, after))
        ):
            yield Change("changed", "event", name, details)


def _event_details(before: EventType, after: EventType) -> tuple[str, ...]:
    versions = f"version: {before.version} → {after.version}"
    fields = tuple(_field_details(before.fields, after.fields))
    return ((versions,) if before.version != after.version else ()) + fields


def _field_list(fields: Mapping[str, Field]) -> str:
    return f"fields: {', '.join(fields) or 'none'}"


def _field_details(
    old: Mapping[str, Field], new: Mapping[str, Field], path: str = ""
) -> Iterator[str]:
    for name in [*old, *(one for one in new if one not in old)]:
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            yield f"+ {path}{name}: {after.kind}"
        elif before is not None and after is None:
            yield f"- {path}{name}: {before.kind}"
        elif before is not None and after is not None and before != after:
            inner = tuple(
                _field_details({part.name: part for part in before.fields},
                               {part.name: part for part in after.fields}, f"{path}{name}[].")
            )  # fmt: skip
            yield from inner
            details = _differing(_shape(before), _shape(after))
            if details:
                yield f"~ {path}{name}: {'; '.join(details)}"


def _shape(field: Field) -> dict[str, str]:
    plain: dict[str, Any] = msgspec.to_builtins(field)
    for name in ("name", "fields", "description", "privacy"):
        del plain[name]
    shape = {
        name.replace("_", " "): str(value)
        for name, value in plain.items()
        if value not in ((), "", None)
    }
    return shape | {f"privacy {name}": text for name, text in privacy_facts(field).items()}


def _fields(what: str, old: Mapping[str, Field], new: Mapping[str, Field]) -> Iterator[Change]:
    for name in [*old, *(one for one in new if one not in old)]:
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            yield Change("new", what, name, (after.kind,))
        elif before is not None and after is None:
            yield Change("dropped", what, name, (before.kind,))
        elif before is not None and after is not None:
            details = _differing(_shape(before), _shape(after))
            if details:
                yield Change("changed", what, name, details)


# -- slots, audiences, campaigns, content, settings

_Named: TypeAlias = Mapping[str, Slot] | Mapping[str, Audience] | Mapping[str, Campaign]


def _compared(what: str, old: _Named, new: _Named) -> Iterator[Change]:
    for name in [*old, *(one for one in new if one not in old)]:
        before, after = old.get(name), new.get(name)
        if before is None:
            yield Change("new", what, name, (), new[name].where)
        elif after is None:
            yield Change("dropped", what, name, ())
        else:
            details = _differing(_plain(before), _plain(after))
            if details:
                yield Change("changed", what, name, details, after.where)


def _plain(one: Slot | Audience | Campaign) -> dict[str, str]:
    if isinstance(one, Slot):
        plain = plain_slot(one)
    elif isinstance(one, Campaign):
        plain = msgspec.to_builtins(msgspec.structs.replace(one, slots=()))
        # Its slots are compared by themselves.
        plain["slots"] = [slot.name for slot in one.slots]
    else:
        plain = msgspec.to_builtins(one)
    plain.pop("where", None)
    if isinstance(one, Audience) and one.when is not None:
        plain["when"] = predicate.describe(one.when)
    return {name: _short(value) for name, value in plain.items() if value not in (None, "", [], {})}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else text[:119] + "…"


def _contents(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> Iterator[Change]:
    for path in sorted({*old, *new}):
        if path not in old:
            yield Change("new", "content", path, (f"{len(new[path])} bytes",), path)
        elif path not in new:
            yield Change("dropped", "content", path, ())
        elif old[path] != new[path]:
            yield Change("changed", "content", path, _lines(old[path], new[path]), path)


def _lines(old: bytes, new: bytes) -> tuple[str, ...]:
    before, after = (set(raw.decode(errors="replace").splitlines()) for raw in (old, new))
    return (f"{len(after - before)} lines new, {len(before - after)} gone",)


def _rules(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    # What a source goes by was not kept with versions once: of those nothing can be said.
    unknown = {"sources.basis"} - old.keys()
    for name in sorted({*old, *new} - unknown):
        if old.get(name) != new.get(name):
            details = (f"{_short(old.get(name))} → {_short(new.get(name))}",)
            yield Change("changed", "setting", name, details, "penstock.toml")


# -- privacy


_LOOSER: dict[str, Callable[[str], int]] = {
    "class": ("public", "internal", "confidential", "restricted", "special").index,
    "protection": ("drop", "pseudonym", "truncate", "plain").index,
    "kept": lambda text: -1 if text.startswith("not") else 10**9 if text.startswith("as") else int(text.split()[0]),
}  # fmt: skip


def _effects(old: Declared, new: Declared) -> Iterator[Effect]:
    for path, what, looser in consent_effects(old.rules, new.rules):
        yield Effect(path, what, wider=looser)
    before, after = set(_purposes(old)), set(_purposes(new))
    for purpose in sorted(after - before):
        yield Effect(purpose, "is a new purpose, which people must permit", wider=True)
    for purpose in sorted(before - after):
        yield Effect(purpose, "is a purpose no longer", wider=False)
    fields, kept = dict(_all_fields(old.catalog)), dict(_all_fields(new.catalog))
    for path, field in kept.items():
        facts = privacy_facts(field)
        if path not in fields:
            if facts["kept"] != "not at all":
                told = ", ".join(facts[name] for name in ("category", "class"))
                yield Effect(path, f"is kept from now on: {told}, for {facts['purpose']}, {facts['protection']}, "
                             f"{facts['kept']}", wider=True)  # fmt: skip
            continue
        earlier = privacy_facts(fields[path])
        for name, text in facts.items():
            if text != earlier[name]:
                rank = _LOOSER.get(name)
                wider = True if rank is None else rank(text) > rank(earlier[name])
                yield Effect(path, f"{name}: {earlier[name]} → {text}", wider)
    for path in fields:
        if path not in kept:
            yield Effect(path, "is kept no longer, from the next event on", wider=False)
    for feature in new.plan.features:
        earlier = {one.name for one in old.plan.features}
        if feature.name not in earlier:
            purposes = ", ".join(new.plan.needs(feature.name))
            yield Effect(
                f"feature {feature.name}",
                f"is computed of everybody who permits {purposes}",
                wider=True,
            )


def _purposes(declared: Declared) -> Iterator[str]:
    yield from declared.plan.purposes
    yield from (field.privacy.purpose for _, field in _all_fields(declared.catalog))
    yield from (slot.purpose for slot in declared.slots.values())
    yield from (one.purpose for one in declared.audiences.values() if one.purpose)


def _all_fields(catalog: Catalog) -> Iterator[tuple[str, Field]]:
    for name, declared in catalog.event_types.items():
        for field in declared.fields.values():
            yield from _with_parts(f"{name}.{field.name}", field)
    for table, fields in (("traits", catalog.traits), ("group traits", catalog.group_traits)):
        for field in fields.values():
            yield from _with_parts(f"{table}.{field.name}", field)


def _with_parts(path: str, field: Field) -> Iterator[tuple[str, Field]]:
    if not field.fields:
        yield path, field
    for part in field.fields:
        yield from _with_parts(f"{path}[].{part.name}", part)


# -- doubts


def _doubts(old: Declared, new: Declared) -> Iterator[Doubt]:
    """Yield who reads a feature whose value is of another kind than it was."""
    turned = {
        name: (before, after)
        for name in {one.name for one in old.plan.features}
        & {one.name for one in new.plan.features}
        if (before := _value_kind(old.plan, name)) != (after := _value_kind(new.plan, name))
    }
    readers = [
        *((f"slot `{slot.name}`", [one.name for one in reads(slot) if one.kind == "feature"], slot.where)
          for slot in new.slots.values()),
        *((f"audience `{one.name}`", [operand.name for operand in predicate.operands(one.when)
                                      if operand.kind == "feature"], one.where)
          for one in new.audiences.values() if one.when is not None),
    ]  # fmt: skip
    for owner, names, where in readers:
        for name in dict.fromkeys(names):
            if name in turned:
                before, after = turned[name]
                yield Doubt(
                    owner, f"reads feature `{name}`, which was {before} and is {after}", where
                )


def _value_kind(plan: Plan, name: str) -> str:
    feature = plan.feature(name)
    kinds = [getattr(node, "kind", "calculated") for _, node in feature.value]
    of = f" of {', '.join(kinds)}" if kinds else ""
    return f"{feature.aggregate}{of}{' by group' if feature.by is not None else ''}"
