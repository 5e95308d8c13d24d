"""Purposes for which data may be used, regimes that say what silence means, and a project's rules."""

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.core.errors import DefinitionError

PERSONALISATION: Final = "personalisation"
MEASUREMENT: Final = "measurement"
ANALYTICS: Final = "analytics"
ADVERTISING: Final = "advertising"

PURPOSES: Final = (PERSONALISATION, MEASUREMENT, ANALYTICS, ADVERTISING)
"""The purposes every project has; it may declare more."""

BASES: Final = (
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interest",
)  # fmt: skip
"""The lawful bases of article 6(1) GDPR, (a) to (f)."""

OPT_IN: Final = "opt_in"
"""Unknown is denied."""
OPT_OUT: Final = "opt_out"
"""Unknown is granted."""
REGIMES: Final = (OPT_IN, OPT_OUT)


class ConsentRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a project's consent signals mean.

    Attributes:
        regime: `opt_in` or `opt_out`: what it means that nothing was said.
        categories: Purposes of each category of the consent platform. A category that is not named
            and whose id is a purpose means that purpose.
        gpc_denies: Purposes that a `Sec-GPC: 1` header denies.
        purposes: All purposes: the usual ones, then the project's own, sorted. What the others name is
            among them; purposes that they do not name may be given.

    Raises:
        DefinitionError: The regime is none of the two (E133), or a purpose has no name (E134).
    """

    regime: str = OPT_IN
    categories: Mapping[str, tuple[str, ...]] = {}
    gpc_denies: tuple[str, ...] = PURPOSES
    purposes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = {purpose for purposes in self.categories.values() for purpose in purposes}
        own = named.union(self.gpc_denies, self.purposes).difference(PURPOSES)
        msgspec.structs.force_setattr(self, "purposes", (*PURPOSES, *sorted(own)))
        if self.regime not in REGIMES:
            raise DefinitionError("E133", "the consent regime is neither `opt_in` nor `opt_out`",
                                  where="consent.regime", fix="write `opt_in` or `opt_out`")  # fmt: skip
        if not all(purpose.isidentifier() for purpose in self.purposes):
            raise DefinitionError("E134", "a purpose is not a plain name", where="consent.purposes",
                                  fix="name purposes like `personalisation`: letters, digits and `_`")  # fmt: skip

    def purposes_of(self, category: str) -> tuple[str, ...]:
        """Return the purposes of a category; empty if the project gives it no meaning."""
        named = self.categories.get(category)
        if named is not None:
            return named
        return (category,) if category in self.purposes else ()
