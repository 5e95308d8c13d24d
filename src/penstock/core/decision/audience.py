"""An audience: who a campaign is for, and whether a person is in it."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from penstock.core.decision.predicate import (
    Names,
    Node,
    View,
    check_predicate,
    check_purpose,
    check_topic,
    judge,
)
from penstock.core.errors import DefinitionError
from penstock.core.profile import Profile


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """An audience as an author declared it.

    Attributes:
        name: Unique in the project.
        when: Who belongs to it; None is everybody.
        topic: What they must not have unsubscribed from; empty for none.
        purpose: What they must permit for anything about them to be used; empty for an audience
            that uses nothing about them.
        where: File and line of the definition.
    """

    name: str
    when: Node | None = None
    topic: str = ""
    purpose: str = "personalisation"
    where: str = ""


class Match(NamedTuple):
    """Whether a person is in an audience, and the reason code.

    `matches`, or why not: `unsubscribed`, `consent`, `withheld` (it depends on something that
    consent withholds), `when_false`.
    """

    matches: bool
    reason: str


def matches(
    audience: Audience, profile: Profile, *, refused_topics: frozenset[str] = frozenset()
) -> Match:
    """Return whether a person is in an audience, and why or why not.

    Args:
        audience: The audience.
        profile: The person.
        refused_topics: Topics they will not get email about, from the suppressions; `*` is all.

    Laws:
        withdrawing a purpose, or refusing a topic, never adds a person.
    """
    if {audience.topic, "*"} & refused_topics and audience.topic:
        return Match(False, "unsubscribed")
    if audience.purpose and audience.purpose not in profile.permitted:
        return Match(False, "consent")
    if audience.when is None:
        return Match(True, "matches")
    holds = judge(audience.when, View(profile=profile, refused_topics=refused_topics))
    if holds is None:
        return Match(False, "withheld")
    return Match(True, "matches") if holds else Match(False, "when_false")


def audiences_by_name(audiences: Iterable[Audience]) -> dict[str, Audience]:
    """Return audiences by their names, sorted.

    Raises:
        DefinitionError: Two have one name (E156).
    """
    found: dict[str, Audience] = {}
    for audience in audiences:
        if found.setdefault(audience.name, audience) is not audience:
            raise DefinitionError(
                "E156",
                f"two audiences are called `{audience.name}`",
                fix=f"rename one; the other is at {found[audience.name].where or 'another place'}",
                where=audience.where,
            )
    return dict(sorted(found.items()))


def check_audience(audience: Audience, names: Names) -> None:
    """Check an audience against what the project defines.

    Raises:
        DefinitionError: A feature (E150), trait (E151), purpose (E157) or topic (E162) is not
            defined, or the predicate (E152) or the purpose (E154) is wrong.
    """
    owner, where = f"audience `{audience.name}`", audience.where
    if audience.purpose:
        check_purpose(audience.purpose, names, owner=owner, where=where)
    elif audience.when is not None:
        raise DefinitionError("E154", f"{owner} uses what is known of people for no purpose", where=where,
                              fix='name one, such as purpose="personalisation", or leave out when=')  # fmt: skip
    if audience.topic:
        check_topic(audience.topic, names, owner=owner, where=where)
    if audience.when is not None:
        check_predicate(audience.when, names, owner=owner, where=where)
