"""An event goes to one leaf, states edges that touch it, and links follow from it alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import ids
from penstock.core.errors import EventRejected
from penstock.core.identity.edges import fold_edge
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.routing import cut_records, link_records, missing_links, route
from penstock.core.record import Evidence, Kind, Record, decode_record, encode_record

KEY = b"k" * 32


def leaf(id_type, value):
    return ids.leaf_id(KEY, "t", id_type, value)


def routed(**given_):
    mention = {
        "user_id": None, "anonymous_id": None, "previous_id": None, "group_id": None,
        "external_ids": (), "email": None, "type_name": "track", "message_id": "m1",
        "occurred_at_ms": 1_000, "verified": True, "make_leaf": leaf, "rules": IdentityRules(),
    }  # fmt: skip
    return route(**{**mention, **given_})


def primary_of(routing, *, verified=True, message_id="m1", at_ms=1_000):
    return Record(
        format=1, kind=Kind.PRIMARY, tenant="t", leaf=routing.primary.leaf,
        id_type=routing.primary.id_type, event_id=ids.event_id(routing.primary.leaf, message_id),
        message_id=message_id, type="track", name="Product Viewed", occurred_at_ms=at_ms,
        received_at_ms=at_ms + 5, source="web", source_rank=3, verified=verified,
        evidence=Evidence("context", ("personalisation",), (), "opt_in"),
        identifiers=routing.identifiers, edges=routing.edges,
        properties={"product_id": "p"}, traits={"first_name": "x"},
    )  # fmt: skip


def shape(routing):
    return [(e.a_type, e.b_type, e.rule, e.verified) for e in routing.edges]


@pytest.mark.parametrize(
    ("mention", "primary", "others"),
    [
        (
            {"user_id": "u", "anonymous_id": "a", "email": "e@x.org"},
            "user_id",
            ["email", "anonymous_id"],
        ),
        ({"anonymous_id": "a", "email": "e@x.org"}, "anonymous_id", ["email"]),
        ({"email": "e@x.org", "external_ids": [("esp.x", "1")]}, "email", ["esp.x"]),
        ({"external_ids": [("esp.x", "1"), ("phone", "+441234567")]}, "esp.x", ["phone"]),
        ({"external_ids": [("email", "E@x.org")]}, "email", []),
        ({"external_ids": [("user_id", "u")], "anonymous_id": "a"}, "user_id", ["anonymous_id"]),
        ({"external_ids": [("item_id", "i")]}, "item_id", []),
        ({"user_id": "u", "external_ids": [("item_id", "i")]}, "user_id", []),
        ({"group_id": "g"}, "group_id", []),
        ({"user_id": "u", "group_id": "g"}, "user_id", []),
    ],
)
def test_a_verified_event_goes_to_its_strongest_identifier(mention, primary, others):
    routing = routed(**mention)
    assert primary == routing.primary.id_type
    assert [(primary, other, "track", True) for other in others] == shape(routing)
    assert routing.primary == routing.identifiers[0]


@pytest.mark.parametrize(
    ("mention", "primary", "others"),
    [
        ({"user_id": "u", "anonymous_id": "a"}, "anonymous_id", ["user_id"]),
        ({"user_id": "u"}, "claimed_user_id", ["user_id"]),
        ({"anonymous_id": "a", "email": "e@x.org"}, "anonymous_id", ["email"]),
        ({"anonymous_id": "a", "group_id": "g", "type_name": "group"}, "anonymous_id", []),
    ],
)
def test_under_a_public_key_all_edges_are_claims(mention, primary, others):
    rule = mention.get("type_name", "track")
    routing = routed(verified=False, **mention)
    assert primary == routing.primary.id_type
    assert [(primary, other, rule, False) for other in others] == shape(routing)


def test_a_claimed_user_has_a_leaf_of_its_own():
    routing = routed(verified=False, user_id="u")
    assert leaf("claimed_user_id", "u") == routing.primary.leaf
    assert leaf("user_id", "u") == routing.edges[0].b


def test_a_group_event_goes_to_the_group_and_joins_nobody():
    routing = routed(type_name="group", user_id="u", group_id="g")
    assert ("group_id", ()) == (routing.primary.id_type, routing.edges)
    assert ["group_id", "user_id"] == [one.id_type for one in routing.identifiers]


def test_an_alias_links_the_new_id_to_the_former_whatever_its_type():
    routing = routed(type_name="alias", user_id="new", previous_id="old")
    assert leaf("user_id", "new") == routing.primary.leaf
    assert [
        ("user_id", "user_id", "alias", True),
        ("user_id", "anonymous_id", "alias", True),
    ] == shape(routing)
    assert [leaf("user_id", "old"), leaf("anonymous_id", "old")] == [e.b for e in routing.edges]


def test_an_alias_of_the_events_own_anonymous_id_is_one_edge():
    routing = routed(type_name="alias", user_id="new", anonymous_id="old", previous_id="old")
    assert [("user_id", "anonymous_id", "alias", True)] == shape(routing)


def test_a_public_alias_claims_nothing_of_the_former_id():
    routing = routed(
        type_name="alias", verified=False, user_id="u", anonymous_id="a", previous_id="x"
    )
    assert [("anonymous_id", "user_id", "alias", False)] == shape(routing)
    assert ("previous_id:unverified",) == routing.blocked


@pytest.mark.parametrize(
    ("mention", "code", "where"),
    [
        ({}, "E340", "$.userId"),
        ({"user_id": "null", "anonymous_id": "undefined"}, "E340", "$.userId"),
        ({"verified": False, "email": "e@x.org"}, "E341", "$.anonymousId"),
        ({"verified": False, "anonymous_id": "00000000-0000-0000-0000-000000000000"}, "E341", "$.anonymousId"),
        ({"user_id": "u", "type_name": "group"}, "E342", "$.groupId"),
        ({"user_id": "u", "type_name": "alias"}, "E343", "$.previousId"),
        ({"user_id": "u", "type_name": "alias", "previous_id": "null"}, "E343", "$.previousId"),
    ],
)  # fmt: skip
def test_events_that_name_nobody_are_refused(mention, code, where):
    with pytest.raises(EventRejected) as caught:
        routed(**mention)
    assert (code, where) == (caught.value.code, caught.value.where)


def test_what_is_left_out_is_named_without_its_value():
    routing = routed(
        user_id="u", anonymous_id="guest", email="secret canary",
        external_ids=[("anonymous_id", "canary"), ("group_id", "canary"), ("Bad Type!", "canary")],
    )  # fmt: skip
    assert (
        "anonymous_id:junk", "email:malformed", "anonymous_id:reserved", "group_id:reserved",
        "external:malformed",
    ) == routing.blocked  # fmt: skip


def test_external_ids_are_bounded():
    routing = routed(user_id="u", external_ids=[("esp.x", str(n + 1)) for n in range(40)])
    assert 16 == len(routing.edges)
    assert ("external:too_many",) * 24 == routing.blocked


names = st.none() | st.sampled_from(["a", "b", "c", "null", " ", 7])
mentions = st.fixed_dictionaries({
    "user_id": names, "anonymous_id": names, "group_id": names, "previous_id": names,
    "email": st.none() | st.sampled_from(["a@x.org", "b@x.org", "junk"]),
    "external_ids": st.lists(st.tuples(st.sampled_from(["phone", "esp.x", "user_id", "item_id", "email"]),
                                       st.sampled_from(["11111", "a@x.org", "b"])), max_size=4),
    "type_name": st.sampled_from(["identify", "track", "group", "alias"]),
    "verified": st.booleans(),
})  # fmt: skip


@given(mentions)
def test_every_edge_touches_the_primary_and_none_leads_to_a_thing(mention):
    try:
        routing = routed(**mention)
    except EventRejected:
        return
    assert routing == routed(**mention)
    seen = {one.leaf for one in routing.identifiers}
    for edge in routing.edges:
        assert edge.a == routing.primary.leaf != edge.b
        assert edge.b in seen
        assert not {edge.a_type, edge.b_type} & {"item_id", "group_id"}
        assert mention["verified"] == edge.verified
        if not edge.verified:
            assert edge.a_type in {"anonymous_id", "claimed_user_id"}


@given(mentions)
def test_a_link_is_a_pure_function_of_its_primary(mention):
    try:
        routing = routed(**mention)
    except EventRejected:
        return
    primary = primary_of(routing, verified=mention["verified"])
    links = link_records(primary)
    assert links == link_records(decode_record(encode_record(primary)))
    assert [(edge,) for edge in routing.edges] == [link.edges for link in links]
    for link in links:
        assert Kind.LINK == link.kind
        assert link.leaf in {link.edges[0].a, link.edges[0].b} - {primary.leaf}
        assert (primary.occurred_at_ms, primary.received_at_ms) == (
            link.occurred_at_ms,
            link.received_at_ms,
        )
        assert ({}, {}) == (link.properties, link.traits)
        assert ids.event_id(link.leaf, link.message_id) == link.event_id
        assert link.identifiers[0].value == next(
            one.value for one in routing.identifiers if one.leaf == link.leaf)  # fmt: skip
    assert len(links) == len({link.event_id for link in links})


def test_links_are_made_only_for_edges_that_the_leaf_does_not_hold():
    held = {}
    first = primary_of(routed(user_id="u", anonymous_id="a"))
    assert 1 == len(missing_links(first, held))
    fold_edge(held, first.edges[0])
    assert [] == missing_links(first, held)
    later = primary_of(routed(user_id="u", anonymous_id="a", message_id="m2", occurred_at_ms=9_000))
    assert [] == missing_links(later, held)
    both = primary_of(routed(user_id="u", anonymous_id="a", email="e@x.org", occurred_at_ms=9_000))
    assert ["email"] == [link.id_type for link in missing_links(both, held)]


def test_an_earlier_join_is_told_to_the_other_side():
    held = {}
    fold_edge(held, routed(user_id="u", anonymous_id="a").edges[0])
    earlier = primary_of(routed(user_id="u", anonymous_id="a", message_id="m0", occurred_at_ms=500))
    assert 1 == len(missing_links(earlier, held))


def test_a_claim_of_what_is_verified_already_needs_no_link():
    held = {}
    fold_edge(held, routed(user_id="u", anonymous_id="a").edges[0])
    claim = primary_of(routed(verified=False, user_id="u", anonymous_id="a"), verified=False)
    assert [] == missing_links(claim, held)


def test_a_join_after_a_cut_is_told_again():
    held = {}
    join = routed(user_id="u", anonymous_id="a").edges[0]
    fold_edge(held, join)
    cuts = cut_records(join, tenant="t", message_id="cut-1", at_ms=2_000, source="operator")
    fold_edge(held, cuts[0].edges[0])
    again = primary_of(routed(user_id="u", anonymous_id="a", message_id="m9", occurred_at_ms=3_000))
    assert 1 == len(missing_links(again, held))


def test_a_cut_goes_to_both_leaves():
    edge = routed(user_id="u", anonymous_id="a").edges[0]
    first, second = cut_records(edge, tenant="t", message_id="c", at_ms=2_000, source="operator")
    assert (edge.a, edge.b) == (first.leaf, second.leaf)
    assert (Kind.CUT, Kind.CUT) == (first.kind, second.kind)
    assert first.edges == second.edges
    assert (False, 2_000, True) == (
        first.edges[0].joined,
        first.edges[0].at_ms,
        first.edges[0].verified,
    )


@given(
    anonymous_id=st.text(max_size=40) | st.sampled_from(("null", "guest", " d-1 ", "0")),
    type_name=st.sampled_from(("identify", "track", "page", "screen")),
    verified=st.booleans(),
)
def test_an_anonymous_id_alone_goes_where_the_whole_table_would_send_it(
    anonymous_id, type_name, verified
):
    def outcome(**beside):
        mention = {"anonymous_id": anonymous_id, "type_name": type_name, "verified": verified}
        try:
            return routed(**mention, **beside)
        except EventRejected as error:
            return error.code

    # An empty group id says nothing, but it is looked at: such an event takes the long way.
    assert outcome(group_id="") == outcome()
