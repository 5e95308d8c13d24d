"""What changed settings of consent, and of what is kept undeclared, mean for people's privacy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from penstock.core.consent.purpose import OPT_OUT, ConsentRules

KEPT: Final = ("drop", "reject", "keep")
"""What becomes of undeclared events, by how much of them is kept: a refused one is a dead letter."""

_UNDECLARED: Final = {
    "drop": "an event that is not declared leaves nothing",
    "reject": "an event that is not declared is kept as a dead letter, without its fields",
    "keep": "that an event happened which is not declared is kept, without its fields",
}

Told = tuple[str, str, bool]
"""Which setting, what follows, and whether it is looser."""


def consent_effects(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Told]:
    """Yield what differs for people: (setting, what follows, whether more is permitted or kept).

    Args:
        old: The settings that what serves goes by, by their names; one that an earlier version did not
            keep is not compared.
        new: Those that may come.
    """
    before, after = _rules(old), _rules(new)
    bases: Mapping[str, Mapping[str, str]] = new.get("sources.basis") or {}
    on_basis = {purpose for basis in bases.values() for purpose in basis}
    if before.regime != after.regime:
        looser = after.regime == OPT_OUT
        silence = "permits every purpose" if looser else "permits nothing"
        yield _told(
            "consent.regime", looser, f"{before.regime} → {after.regime}, silence {silence}"
        )
    yield from _global_control(before, after)
    yield from _categories(before, after, on_basis)
    yield from _undeclared(old.get("project.undeclared"), new.get("project.undeclared"))
    if old.get("sources.basis") is not None:
        yield from _bases(old["sources.basis"], bases)


def _told(path: str, looser: bool, what: str) -> Told:
    return path, f"{'loosened' if looser else 'tightened'}: {what}", looser


def _rules(settings: Mapping[str, Any]) -> ConsentRules:
    given = {
        name: settings[f"consent.{name}"]
        for name in ("regime", "gpc_denies", "purposes", "categories")
        if f"consent.{name}" in settings
    }
    return ConsentRules(
        regime=given.get("regime", ConsentRules().regime),
        categories={name: tuple(one) for name, one in given.get("categories", {}).items()},
        gpc_denies=tuple(given.get("gpc_denies", ConsentRules().gpc_denies)),
        purposes=tuple(given.get("purposes", ())),
    )


def _global_control(before: ConsentRules, after: ConsentRules) -> Iterator[Told]:
    was, is_ = set(before.gpc_denies), set(after.gpc_denies)
    for purpose in sorted(was - is_):
        yield _told("consent.gpc_denies", True, f"a `Sec-GPC` signal denies {purpose} no longer")
    for purpose in sorted(is_ - was):
        yield _told("consent.gpc_denies", False, f"a `Sec-GPC` signal denies {purpose}")


def _categories(before: ConsentRules, after: ConsentRules, on_basis: set[str]) -> Iterator[Told]:
    """Yield what a category's consent and its denial mean from now on.

    A meaning more is a consent more, unless silence permits already. A meaning less is a denial that
    nobody hears, where the purpose is permitted without consent.
    """
    for category in sorted({*before.categories, *after.categories}):
        was, is_ = set(before.purposes_of(category)), set(after.purposes_of(category))
        path = f"consent.categories.{category}"
        for purpose in sorted(is_ - was):
            looser = after.regime != OPT_OUT
            yield _told(
                path,
                looser,
                f"stands for {purpose}: consent to it permits that, its denial denies that",
            )
        for purpose in sorted(was - is_):
            looser = after.regime == OPT_OUT or purpose in on_basis
            yield _told(
                path,
                looser,
                f"stands for {purpose} no longer: neither consent to it nor its denial counts",
            )


def _undeclared(before: Any, after: Any) -> Iterator[Told]:
    if before != after and before in KEPT and after in KEPT:
        yield _told(
            "project.undeclared", KEPT.index(after) > KEPT.index(before), _UNDECLARED[after]
        )


def _bases(
    old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> Iterator[Told]:
    for source in sorted({*old, *new}):
        was, is_ = old.get(source, {}), new.get(source, {})
        for purpose in sorted({*was, *is_}):
            path = f"sources.{source}.basis.{purpose}"
            if purpose not in is_:
                yield _told(path, False, f"without {was[purpose]}: only consent permits it")
            elif purpose not in was:
                yield _told(path, True, f"{is_[purpose]}, where an event says nothing of consent")
            elif was[purpose] != is_[purpose]:
                yield path, f"lawful basis: {was[purpose]} → {is_[purpose]}", True
