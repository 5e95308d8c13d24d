"""A person and a campaign become content: read, decide once, record, render; always an answer."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple

import msgspec

from penstock.core.consent.suppression import Suppression, SuppressionKey, may_send
from penstock.core.decision.campaign import Campaign
from penstock.core.decision.decide import decide, wanted_items
from penstock.core.decision.item import Item, item_of
from penstock.core.decision.policy import Policy
from penstock.core.decision.popular import NOTHING_POPULAR, Popular
from penstock.core.decision.record import (
    Chosen,
    Decision,
    SlotDecision,
    decision_id_of,
    decode_decision,
    encode_decision,
)
from penstock.core.decision.slot import Slot, template_of
from penstock.core.errors import DamagedLeaf, PenstockError, Unavailable
from penstock.core.ids import LeafId, leaf_id
from penstock.core.leaf import Leaf
from penstock.core.measure.assignment import holdout_of
from penstock.core.profile import Profile
from penstock.core.record import Version
from penstock.core.time import DAY_MS, format_instant
from penstock.flows.person import (
    Definitions,
    Person,
    find_person,
    profile_of,
    register_leaves,
)
from penstock.flows.recall import Look, Read, Recall
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decided, DecisionKey, Decisions
from penstock.ports.metrics import Metrics
from penstock.ports.profiles import Profiles
from penstock.ports.renderer import Renderer
from penstock.ports.suppressions import Suppressions

PutDecisions = Callable[[Sequence[tuple[DecisionKey, bytes]]], Awaitable[list[Decided]]]
"""`Decisions.put_if_absent`, awaited: one group commit serves whoever asks meanwhile."""


class Who(NamedTuple):
    """Whom a caller asks about: the leaf of the identifier they named."""

    leaf: LeafId
    id_type: str


NOBODY = Who(LeafId(bytes(16)), "")

ITEMS_MAX = 10_000
"""Items kept as decisions see them: to make one is more than all else that is done with it."""

STANDING_MAX = 4_096
"""Decisions whose content is kept for whoever asks again; the oldest is forgotten first."""


class SlotContent(msgspec.Struct, frozen=True):
    """What a slot shows: its items as data, and the block rendered from them."""

    items: list[dict[str, Any]]
    html: str


class Answer(msgspec.Struct, frozen=True):
    """The answer to "what does this person see": always content, and how good it is."""

    ok: bool
    served: str
    """`live`, `stale`, `fallback` or `holdout`."""
    reason: str
    decision_id: str
    profile_as_of: str
    """Up to when the log is reflected, ISO 8601; empty without a profile."""
    age_ms: int
    slots: dict[str, SlotContent]


class Outcome(NamedTuple):
    """An answer with what it was made of, for whoever renders or sends an email from it."""

    answer: Answer
    decision: Decision | None
    profile: Profile | None
    suppressions: Mapping[SuppressionKey, Suppression]
    recipient: LeafId | None = None
    """Whose unsubscribe link an email of this answer carries; None if nobody was named."""


class _Standing(NamedTuple):
    """A decision that was made, and its content: neither changes any more."""

    campaign: Campaign
    decision: Decision
    purposes: frozenset[str]
    """For which its content uses what is known of the person."""
    slots: dict[str, SlotContent]
    profile_as_of: str
    """When the profile was read that it was made on, as answers say it."""


class ServeRules(NamedTuple):
    """What serving goes by besides the definitions."""

    tenant: str
    identifier_key: bytes
    global_holdout_ppm: int = 0
    timeout_ms: int = 1_000
    stale_after_ms: int = 60_000
    definitions_number: int = 0
    """The version of the definitions that this serves; recorded with every decision."""


class Serving:
    """Answers reads. Lives on one event loop; one a project.

    Args:
        profiles: The read path.
        decisions: Where decisions stand.
        put_decisions: The awaited way to record one.
        suppressions: Read directly, at every answer.
        renderer: The project's templates.
        campaigns: By name.
        definitions: The plan and rules that leaves were folded by.
        rules: Keys and limits.
        clock: Tells now.
        metrics: Where to count.
        on_fault: Told of an exception that nobody foresaw, after which the fallback is served.
        popular: What is popular now, ready to read.
    """

    def __init__(  # noqa: PLR0913 - the one place where serving's parts meet
        self, *, profiles: Profiles, decisions: Decisions, put_decisions: PutDecisions,
        suppressions: Suppressions, renderer: Renderer, campaigns: Mapping[str, Campaign],
        definitions: Definitions, rules: ServeRules, clock: Clock, metrics: Metrics,
        on_fault: Callable[[Exception], None] = lambda _: None,
        popular: Callable[[], Popular] = lambda: NOTHING_POPULAR,
    ) -> None:  # fmt: skip
        self.profiles = profiles
        self.decisions = decisions
        self.put_decisions = put_decisions
        self.suppressions = suppressions
        self.renderer = renderer
        self.campaigns = campaigns
        self.definitions = definitions
        self.rules = rules
        self.clock = clock
        self.metrics = metrics
        self.on_fault = on_fault
        self._previewed: dict[str, tuple[Campaign, Campaign]] = {}
        self._standing: dict[DecisionKey, _Standing] = {}
        self._asked: dict[tuple[LeafId, str, str], None] = {}
        """By what those who stand were asked for: leaf, campaign, send."""
        self._served: dict[tuple[str, str], Callable[[float], None]] = {}
        self._items: dict[str, tuple[Version, Item]] = {}
        """By raw id, with the version of the leaf that each was made of."""
        self._item_leaf = lru_cache(ITEMS_MAX)(
            partial(leaf_id, rules.identifier_key, rules.tenant, "item_id")
        )
        self._count_repeated = metrics.bound("penstock_decisions_total", outcome="repeated")
        self.popular = popular
        self.recall = Recall(profiles, suppressions, clock)

    def over(
        self,
        profiles: Profiles,
        *,
        clock: Clock | None = None,
        register: Suppressions | None = None,
    ) -> Serving:
        """Return a serving of other leaves, such as those of the past, at another clock or register.

        It must only be asked for previews and profiles: decisions belong to the present.
        """
        other = copy.copy(self)
        other.profiles = profiles
        other.clock = clock or self.clock
        other.suppressions = register or self.suppressions
        other.recall = Recall(profiles, other.suppressions, other.clock)
        other._items = {}  # noqa: SLF001 - its own: other leaves may have the same versions
        return other

    # -- profiles

    async def look(self, whom: Sequence[Who]) -> Look:
        """Return several people as of now, remembered where nothing has changed since.

        Never raises for lack of anything: who cannot be read is what was last known, or unread.
        """
        return await self.recall.look([who.leaf for who in whom], self.definitions)

    async def profile(self, who: Who, as_of_ms: int | None = None) -> tuple[Profile, Person]:
        """Return a person's profile as of an instant, with the person it was merged from.

        Raises:
            EventRejected: `as_of` is before what is known (E390).
            Unavailable: The store or the register did not answer (E402, E403).
        """
        person = await find_person(self.profiles, who.leaf, self.definitions)
        register = self.suppressions.get(register_leaves(person))
        return profile_of(person, self.definitions, as_of_ms, self.clock.now_ms(), register), person

    # -- decisions

    def default_send(self, campaign: Campaign) -> str:
        """Return the send of a caller that names none: the campaign's version and the UTC day."""
        day = format_instant(self.clock.now_ms() // DAY_MS * DAY_MS)[:10]
        return f"v{campaign.version}-{day}"

    async def decide(
        self, campaign_name: str, who: Who, send: str | None = None, *, preview: bool = False
    ) -> Outcome:
        """Return what a person sees; never raises for lack of anything.

        Args:
            campaign_name: Which campaign.
            who: Whom.
            send: Which send; None for `default_send`.
            preview: Touch no decision, holdout or exposure, and draw nothing by lot.
        """
        campaign = self.campaigns.get(campaign_name)
        if campaign is None:
            return _nothing("unknown_campaign")
        try:
            async with asyncio.timeout(self.rules.timeout_ms / 1000):
                outcome = await self._decide(
                    campaign, who, send or self.default_send(campaign), preview=preview
                )
        except TimeoutError:
            outcome = self._fallback(campaign, who, "timeout")
        except Unavailable as error:
            outcome = self._fallback(campaign, who, f"unavailable_{error.code}")
        except PenstockError as error:
            outcome = self._fallback(campaign, who, error.code)
        except Exception as error:  # noqa: BLE001 - an email cannot show a stack trace
            self.on_fault(error)
            outcome = self._fallback(campaign, who, f"fault_{type(error).__name__}")
        if not preview:
            self._count_served(outcome.answer)
        return outcome

    async def again(
        self, campaign_name: str, who: Who, send: str | None = None, *, hurry: bool = False
    ) -> Answer | None:
        """Return what `decide` answers if it is a decision whose content is at hand; None to ask it.

        The person is read as ever: what they permit, and what they have refused, is as of now.

        Args:
            campaign_name: Which campaign.
            who: Whom.
            send: Which send; None for `default_send`.
            hurry: The person may be as last known, if nothing was withdrawn since; nobody is read.
        """
        campaign = self.campaigns.get(campaign_name)
        if campaign is None:
            return None
        send = send or self.default_send(campaign)
        # Nearly always a decision is asked for by what it was asked for before: who has not been is
        # not read for nothing.
        if (who.leaf, campaign_name, send) not in self._asked:
            return None
        try:
            if hurry:
                read = self.recall.remembered(who.leaf, self.definitions)
                if read is None:
                    return None
            else:
                read = await self.recall.read(who.leaf, self.definitions)
            person = read.person.profile  # of which nothing is used that moves with the instant
            standing = self._standing.get(self._key(campaign, who, person, send))
            if standing is None or standing.campaign is not campaign:
                return None
            self._count_repeated(1)
            answer = (
                self._answer_again(standing) if standing.purposes <= person.permitted
                else self._withheld(campaign, who).answer
            )  # fmt: skip
        except Exception:  # noqa: BLE001 - `decide` meets it too, and says so in its answer
            return None
        self._count_served(answer)
        return answer

    def _count_served(self, answer: Answer) -> None:
        key = (answer.served, answer.reason)
        count = self._served.get(key)
        if count is None:
            count = self._served[key] = self.metrics.bound(
                "penstock_served_total", served=answer.served, reason=answer.reason
            )
        count(1)

    def fallback(self, campaign_name: str, reason: str) -> Outcome:
        """Return the content that needs no person, such as for a caller that names nobody.

        Args:
            campaign_name: Which campaign.
            reason: Why, an error's code.
        """
        if campaign_name in self.campaigns:
            self.metrics.count("penstock_served_total", served="fallback", reason=reason)
        return self.static(campaign_name, reason)

    def static(self, campaign_name: str, reason: str) -> Outcome:
        """Return the content that needs no person, for whoever only looks at it: nobody is served."""
        campaign = self.campaigns.get(campaign_name)
        if campaign is None:
            return _nothing("unknown_campaign")
        return self._fallback(campaign, NOBODY, reason)

    async def _decide(self, campaign: Campaign, who: Who, send: str, *, preview: bool) -> Outcome:
        read = await self.recall.read(who.leaf, self.definitions)
        now, person = read.now_ms, read.person
        profile, register = read.profile, person.register
        key = self._key(campaign, who, profile, send)
        recipient = LeafId(key.recipient)
        if not preview:
            stored = self.decisions.get([key])[0]
            if stored is not None:
                standing = self._keep(key, who, campaign, decode_decision(stored))
                return self._repeated(standing, who, read)
        refused = refused_topics(register, campaign.channel)
        holdout = "" if preview else holdout_of(
            recipient, campaign.name, campaign_share_ppm=campaign.holdout_share_ppm,
            global_share_ppm=self.rules.global_holdout_ppm,
        )  # fmt: skip
        if preview:
            campaign = self._without_lots(campaign)
        freshness, reason = self._freshness(read)
        popular = self.popular()
        items = await self.items(
            wanted_items(
                campaign, profile, holdout=holdout, refused_topics=refused, popular=popular
            )
        )
        decision = decide(
            campaign, profile, items,
            tenant=self.rules.tenant, recipient=recipient, send=send,
            decision_id=decision_id_of(self.rules.tenant, recipient, campaign.name, send),
            as_of_ms=now, offset_known_at=person.known_at,
            holdout=holdout, freshness=freshness, reason=reason, refused_topics=refused,
            recipient_type="email" if recipient != who.leaf else who.id_type, popular=popular,
            definitions_number=self.rules.definitions_number,
        )  # fmt: skip
        if not preview:
            try:
                stands = (await self.put_decisions([(key, encode_decision(decision))]))[0]
            except Unavailable:
                self.metrics.count("penstock_decisions_total", outcome="undecided")
                return self._fallback(campaign, who, "undecided")
            # The winner too shows what is recorded: the same bytes now and whenever it is asked.
            decision = decode_decision(stands.record)
            self.metrics.count(
                "penstock_decisions_total", outcome="made" if stands.created else "repeated"
            )
            standing = self._keep(key, who, campaign, decision)
        else:
            standing = self._standing_of(campaign, decision)
        as_of_ms = read.log_as_of_ms
        answer = self._answer(standing, as_of_ms, format_instant(as_of_ms))
        return Outcome(answer, decision, profile, register, recipient)

    def _key(self, campaign: Campaign, who: Who, profile: Profile, send: str) -> DecisionKey:
        """Return the key of a decision: by address where one is known, so that nobody is sent two."""
        recipient = who.leaf if who.id_type == "email" else (profile.email_leaf or who.leaf)
        return DecisionKey(self.rules.tenant, recipient, campaign.name, send)

    def _standing_of(self, campaign: Campaign, decision: Decision) -> _Standing:
        purposes = frozenset(used_purposes(campaign, decision))
        return _Standing(
            campaign, decision, purposes, self.contents(campaign, decision),
            format_instant(decision.profile_as_of_ms),
        )  # fmt: skip

    def _keep(
        self, key: DecisionKey, who: Who, campaign: Campaign, decision: Decision
    ) -> _Standing:
        standing = self._standing_of(campaign, decision)
        if len(self._standing) >= STANDING_MAX:
            del self._standing[next(iter(self._standing))]
        self._standing[key] = standing
        if len(self._asked) >= STANDING_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[who.leaf, campaign.name, key.send] = None
        return standing

    def _repeated(self, standing: _Standing, who: Who, read: Read) -> Outcome:
        """Answer with a decision that was made before."""
        self._count_repeated(1)
        profile = read.profile
        if not standing.purposes <= profile.permitted:
            return self._withheld(standing.campaign, who)
        decision = standing.decision
        return Outcome(
            self._answer_again(standing), decision, profile, read.person.register, LeafId(decision.recipient)
        )  # fmt: skip

    def _answer_again(self, standing: _Standing) -> Answer:
        as_of_ms = standing.decision.profile_as_of_ms
        return self._answer(standing, as_of_ms, standing.profile_as_of)

    def _withheld(self, campaign: Campaign, who: Who) -> Outcome:
        """Answer in place of a decision: what was permitted then is not served against a withdrawal."""
        return self._fallback(campaign, who, "consent")

    def _without_lots(self, campaign: Campaign) -> Campaign:
        """Return a campaign that draws nothing by lot: a preview shows what the ranking gives."""
        found = self._previewed.get(campaign.name)
        if found is None or found[0] is not campaign:
            slots = tuple(msgspec.structs.replace(slot, policy=Policy()) for slot in campaign.slots)
            ranked = msgspec.structs.replace(campaign, uniform_share_ppm=0, slots=slots)
            found = self._previewed[campaign.name] = (campaign, ranked)
        return found[1]

    def _freshness(self, read: Read) -> tuple[str, str]:
        if read.person.bounded:
            return "stale", "identity_bound"
        if not read.live:
            return "stale", "catching_up"
        if read.now_ms - read.log_as_of_ms > self.rules.stale_after_ms:
            return "stale", "lag"
        return "live", ""

    async def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """Return the items of some raw ids, those that exist."""
        if not item_ids:
            return {}
        leaves = [self._item_leaf(one) for one in item_ids]
        try:
            found = (await self.profiles.read(leaves)).leaves
        except DamagedLeaf:
            # One item that does not read back is one that nobody is shown, and no more than that.
            found = [await self._item(leaf) for leaf in leaves]
        return {
            item_id: self._item_of(item_id, leaf)
            for item_id, leaf in zip(item_ids, found, strict=True)
            if leaf is not None and leaf.traits
        }

    def _item_of(self, item_id: str, leaf: Leaf) -> Item:
        """Return the item of its leaf: made anew only if the leaf is not what it was made of."""
        kept = self._items.get(item_id)
        if kept is not None and kept[0] == leaf.version:
            return kept[1]
        item = item_of(item_id, leaf.traits)
        if len(self._items) >= ITEMS_MAX:
            del self._items[next(iter(self._items))]
        self._items[item_id] = (leaf.version, item)
        return item

    async def _item(self, leaf: LeafId) -> Leaf | None:
        with suppress(DamagedLeaf):
            return (await self.profiles.read([leaf])).leaves[0]
        return None

    # -- answers

    def _answer(self, standing: _Standing, as_of_ms: int, profile_as_of: str) -> Answer:
        """Return a decision as an answer; its age is that of the profile it was made on."""
        decision = standing.decision
        return Answer(
            True, decision.served, decision.reason, decision.decision_id, profile_as_of,
            max(0, self.clock.now_ms() - as_of_ms), standing.slots,
        )  # fmt: skip

    def contents(self, campaign: Campaign, decision: Decision) -> dict[str, SlotContent]:
        """Return what each slot of a decision shows, rendered from the values it recorded."""
        slots = {slot.name: slot for slot in campaign.slots}
        return {
            decided.name: self._content(campaign, slots[decided.name], decided)
            for decided in decision.slots
            if decided.name in slots
        }

    def _content(self, campaign: Campaign, slot: Slot, decided: SlotDecision) -> SlotContent:
        items = [chosen.fields for chosen in decided.items]
        try:
            html = self._render(campaign, slot, decided.items)
        except PenstockError:
            # A template that fails on this data costs the slot, never the email.
            static = dict(slot.fallback[-1].args.get("content", {}))
            items = [static]
            block = slot.fallback[-1].args.get("block", "")
            try:
                html = self.renderer.render(
                    block or template_of(slot), _data(campaign, slot, items)
                )
            except PenstockError:
                html = ""
        return SlotContent([presentable(item) for item in items], html)

    def _render(self, campaign: Campaign, slot: Slot, chosen: Sequence[Chosen]) -> str:
        if any(one.block for one in chosen):
            return "".join(
                self.renderer.render(
                    one.block or template_of(slot), _data(campaign, slot, [one.fields])
                )
                for one in chosen
            )
        return self.renderer.render(
            template_of(slot), _data(campaign, slot, [one.fields for one in chosen])
        )

    def _fallback(self, campaign: Campaign, who: Who, reason: str) -> Outcome:
        """Answer with the content that needs no person; not recorded, and so kept out of impact."""
        decision = decide(
            campaign, None, {},
            tenant=self.rules.tenant, recipient=who.leaf, send="", decision_id="0" * 32,
            as_of_ms=self.clock.now_ms(), offset_known_at=-1, reason=reason,
            recipient_type=who.id_type, definitions_number=self.rules.definitions_number,
        )  # fmt: skip
        answer = Answer(
            ok=True, served="fallback", reason=reason, decision_id="", profile_as_of="", age_ms=0,
            slots=self.contents(campaign, decision),
        )  # fmt: skip
        return Outcome(answer, None, None, {}, None if who is NOBODY else who.leaf)


def _data(campaign: Campaign, slot: Slot, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "items": list(items),
        "item": items[0] if items else {},
        "slot": slot.name,
        "campaign": campaign.name,
    }


def _nothing(reason: str) -> Outcome:
    answer = Answer(
        ok=False,
        served="fallback",
        reason=reason,
        decision_id="",
        profile_as_of="",
        age_ms=0,
        slots={},
    )
    return Outcome(answer, None, None, {})


def used_purposes(campaign: Campaign, decision: Decision) -> set[str]:
    """Return the purposes for which a decision's content uses what is known of the person."""
    used = {slot.name for slot in decision.slots if not slot.fallback_used}
    return {slot.purpose for slot in campaign.slots if slot.name in used and slot.purpose}


def refused_topics(register: Mapping[SuppressionKey, Suppression], channel: str) -> frozenset[str]:
    """Return the topics of a channel that a person has refused; `*` is all of them.

    Args:
        register: The entries of all leaves of the person: who unsubscribes by their user id is not
            written to by their address.
        channel: Such as `email`.
    """
    topics = {key.name for key in register if key.plane == channel}
    return frozenset(topic for topic in topics if not may_send(register, channel, topic)[0])


def presentable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item's fields for JSON: money as `{"amount_minor": 1999, "currency": "GBP"}`."""
    return {name: _presentable(value) for name, value in fields.items()}


def _presentable(value: Any) -> Any:
    match value:
        case [int(amount), str(currency)] if len(currency) == 3 and currency.isupper():
            return {"amount_minor": amount, "currency": currency}
        case _:
            return value
