"""Records as the edge makes them, and a leaf with its log: the parts of the step's tests."""

from typing import Any

import msgspec

from penstock.core.consent.purpose import ConsentRules
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import route
from penstock.core.ids import LeafId, event_id, leaf_id
from penstock.core.leaf import ID_TILE_MS, Leaf, decode_leaf, encode_leaf
from penstock.core.record import (
    RECORD_FORMAT,
    Evidence,
    Kind,
    Record,
)
from penstock.core.step import Outcome, Rules, Step
from penstock.dsl.events import event, money, string
from penstock.dsl.features import Profile, compile_plan, count, days, last_k, lifetime, top_k
from penstock.dsl.features import sum as total

NOW = 1_795_000_000_000 // ID_TILE_MS * ID_TILE_MS
GRANTED = Evidence("context", granted=("measurement", "personalisation"))
DENIED = Evidence("context", denied=("measurement", "personalisation"))
UPDATED = "Segment Consent Preference Updated"

viewed = event("Product Viewed", product_id=string(), category=string())
ordered = event("Order Completed", total=money(currency="GBP"))


class Shopper(Profile):
    views = count(viewed, over=days(7))
    recent = last_k(viewed.product_id, k=3, over=days(7))
    favourite = top_k(viewed.category, k=2, over=days(7))
    spent = total(ordered.total, over=lifetime())
    measured = count(viewed, over=days(7), purpose="measurement")


PLAN: Plan = compile_plan([Shopper])
RULES = Rules(ConsentRules(), {"segment": "measurement"})


def make_leaf(id_type: str, value: str) -> LeafId:
    return leaf_id(b"k" * 32, "t", id_type, value)


def record(
    message_id: str, *, at_ms: int = NOW, user: str | None = "u1", device: str | None = None,
    name: str = "Product Viewed", type_name: str = "track", verified: bool = True, rank: int = 0,
    evidence: Evidence = GRANTED, job: str = "", bare: bool = False, group: str | None = None,
    traits: dict[str, Any] | None = None, **properties: Any,
) -> Record:  # fmt: skip
    """A primary, as the edge makes it."""
    routing = route(
        user_id=user, anonymous_id=device, previous_id=None, group_id=group, external_ids=(), email=None,
        type_name=type_name, message_id=message_id, occurred_at_ms=at_ms, verified=verified,
        make_leaf=make_leaf, rules=IdentityRules(),
    )  # fmt: skip
    leaf = routing.primary.leaf
    return Record(
        format=RECORD_FORMAT, kind=Kind.PRIMARY, tenant="t", leaf=leaf, id_type=routing.primary.id_type,
        event_id=event_id(leaf, message_id), message_id=message_id, type=type_name,
        name=name if type_name == "track" else type_name, occurred_at_ms=at_ms, received_at_ms=at_ms,
        source="site", source_rank=rank, verified=verified, evidence=evidence,
        identifiers=() if bare else routing.identifiers, edges=() if bare else routing.edges,
        properties={} if bare else {"product_id": message_id, "category": message_id[-1], **properties},
        traits=traits or {}, job=job, bare=bare,
    )  # fmt: skip


class Folding:
    """One leaf and its log: records are folded as they are logged, with a crash when asked."""

    def __init__(self, rules: Rules = RULES, leaf: LeafId | None = None) -> None:
        self.step = Step(PLAN, rules)
        self.leaf = Leaf(leaf or make_leaf("user_id", "u1"), PLAN.new_states())
        self.links: list[Record] = []
        self.next_offset = 0

    def log(self, one: Record, at_ms: int | None = None, generation: int = 1) -> Outcome:
        at_ms = one.received_at_ms if at_ms is None else at_ms
        outcome = self.step.fold(self.leaf, one, generation, self.next_offset, at_ms, self.links)
        self.next_offset += 1
        return outcome

    def stored(self) -> bytes:
        return encode_leaf(self.leaf, PLAN)

    def crash(self) -> None:
        """Go on from the stored bytes, as after a restart."""
        self.step = Step(PLAN, self.step.rules)
        self.leaf = decode_leaf(self.leaf.leaf, self.leaf.version, self.stored(), PLAN)

    def read(
        self, permitted: frozenset[str] = frozenset({"personalisation", "measurement"})
    ) -> Any:
        leaf = self.leaf
        return PLAN.read(leaf.states, leaf.clock_ms, leaf.clock_ms, leaf.purged, permitted)


def folded(log: list[tuple[Record, int]], crashes: frozenset[int] = frozenset(),
           rules: Rules = RULES) -> Folding:  # fmt: skip
    """Fold a log; die after the records whose places are in `crashes`."""
    folding = Folding(rules)
    for place, (one, logged_at_ms) in enumerate(log):
        folding.log(one, logged_at_ms)
        if place in crashes:
            folding.crash()
    return folding


def without_size(raw: bytes) -> list[Any]:
    """A leaf's body without its running size, which is an upper bound between two measurements."""
    body = msgspec.msgpack.decode(raw)
    del body[12]
    return body
