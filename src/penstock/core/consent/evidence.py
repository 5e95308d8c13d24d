"""The consent evidence that the edge stamps into a record, and what a record's evidence permits."""

from collections.abc import Mapping
from typing import Final

from penstock.core.consent.purpose import OPT_OUT, ConsentRules
from penstock.core.record import Evidence

GPC: Final = "gpc"
CONTEXT: Final = "context"
BASIS: Final = "basis"
UNKNOWN: Final = "unknown"
SOURCES: Final = (GPC, CONTEXT, BASIS, UNKNOWN)
"""Where evidence comes from, strongest first."""

COLLECT: Final = "collect"
"""Something is permitted: keep the event."""
BARE: Final = "bare"
"""Nothing is permitted and something was denied in so many words: keep the denial, nothing else."""
DISCARD: Final = "discard"
"""Nothing is permitted and nothing was said: keep nothing, count it."""


def stamp(
    preferences: Mapping[str, object] | None,
    gpc: bool,
    basis: Mapping[str, str],
    rules: ConsentRules,
) -> Evidence:
    """Return the evidence for an event: for each purpose the strongest source that says something.

    The order is a `Sec-GPC` denial, the event's own preferences, the lawful basis its source
    declares, else unknown. Where several categories speak of one purpose a denial wins. A
    preference other than true, false or null cannot be read and counts as a denial.

    Args:
        preferences: `context.consent.categoryPreferences`, category id to a boolean, or None.
        gpc: The request carried `Sec-GPC: 1`.
        basis: The lawful basis of each purpose that the source declares, such as `contract`.
        rules: The project's consent rules.
    """
    said: dict[str, tuple[bool, str]] = {}
    if gpc:
        said.update((purpose, (True, GPC)) for purpose in rules.gpc_denies)
    for purpose, denied in _preferences(preferences or {}, rules).items():
        said.setdefault(purpose, (denied, CONTEXT))
    for purpose, name in basis.items():
        said.setdefault(purpose, (False, f"{BASIS}:{name}"))
    heard = {origin.partition(":")[0] for _, origin in said.values()}
    source = next((one for one in SOURCES if one in heard), UNKNOWN)
    return Evidence(
        source=source,
        granted=tuple(sorted(purpose for purpose, (denied, _) in said.items() if not denied)),
        denied=tuple(sorted(purpose for purpose, (denied, _) in said.items() if denied)),
        regime=rules.regime,
        origins=tuple(sorted((p, origin) for p, (_, origin) in said.items() if origin != source)),
    )


def _preferences(preferences: Mapping[str, object], rules: ConsentRules) -> dict[str, bool]:
    denied: dict[str, bool] = {}
    for category, preference in preferences.items():
        if preference is None:
            continue
        for purpose in rules.purposes_of(category):
            denied[purpose] = denied.get(purpose, False) or preference is not True
    return denied


def origin(evidence: Evidence, purpose: str) -> str:
    """Return what decided a purpose: `gpc`, `context`, or a lawful basis such as `basis:contract`."""
    for named, source in evidence.origins:
        if named == purpose:
            return source
    return evidence.source


def permitted(evidence: Evidence, rules: ConsentRules) -> frozenset[str]:
    """Return the purposes that a record may be used for, judged by what the record itself carries.

    The regime is the one stamped into the record, else the project's.

    Laws:
        A function of the evidence and the rules alone, so it may be remembered by evidence.
    """
    permitted = set(evidence.granted)
    if (evidence.regime or rules.regime) == OPT_OUT:
        permitted.update(rules.purposes)
    return frozenset(permitted.difference(evidence.denied))


def useful(evidence: Evidence, rules: ConsentRules) -> str:
    """Return what the edge does with an event: `collect`, `bare` or `discard`.

    What says something about permission itself (a changed preference, an unsubscribe, a complaint,
    a bounce) is kept whatever this answers.
    """
    if permitted(evidence, rules):
        return COLLECT
    return BARE if evidence.denied else DISCARD
