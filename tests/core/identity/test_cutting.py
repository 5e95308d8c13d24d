"""Two identifiers are cut apart: over random worlds neither is in the other's person any more."""

from hypothesis import given
from hypothesis import strategies as st
from identity_stories import rules, stories, told

from penstock.core.identity.cutting import Named, apart, weaker_first
from penstock.core.identity.edges import fold_edge
from penstock.core.identity.graph import resolve
from penstock.core.identity.identifier import USER, IdentityRules
from penstock.core.identity.routing import cut_of

LATER = 100
ids = st.sampled_from([
    ("user_id", "u1"), ("user_id", "u2"), ("anonymous_id", "a1"), ("anonymous_id", "a2"),
    ("email", "e1@x.org"), ("email", "e2@x.org"), ("phone", "11111"), ("claimed_user_id", "u1"),
])  # fmt: skip


def cut(world, one, other, at_ms=LATER):
    """Cut two identifiers apart as the engine does, and return what that says."""
    first, second = (Named(world.leaf(*name), name[0]) for name in (one, other))
    done = apart(*weaker_first(first, second, world.rules), world.everything(), world.rules)
    for edge in (*done.undone, *done.kept_apart):
        for leaf in (edge.a, edge.b):
            stated = cut_of(edge, at_ms=at_ms, event_id=1, rule="cut")
            fold_edge(world.edges.setdefault(leaf, {}), stated)
    return done


@given(stories, rules, ids, ids)
def test_neither_is_in_the_others_person_once_cut(make_world, story, rules, one, other):
    if one == other:
        return
    world = told(make_world, story, rules)
    first, second = world.leaf(*one), world.leaf(*other)

    cut(world, one, other)

    known = world.everything()
    if (one[0], other[0]) != (USER, USER):
        assert second not in resolve(first, known, rules).leaves
        assert first not in resolve(second, known, rules).leaves
    assert ([], []) == cut(world, one, other, LATER + 1)[:2]


@given(stories, rules, ids, ids)
def test_whoever_has_to_do_with_neither_is_who_they_were(make_world, story, rules, one, other):
    if one == other:
        return
    world = told(make_world, story, rules)
    before = world.everything()
    concerned = {leaf for name in (one, other) for leaf in _near(world, world.leaf(*name), before)}

    cut(world, one, other)

    after = world.everything()
    for leaf in set(before) - concerned:
        assert resolve(leaf, before, rules) == resolve(leaf, after, rules)


def _near(world, leaf, known):
    """Return everything that edges of any kind lead to."""
    found, ring = {leaf}, [leaf]
    while ring:
        here = ring.pop()
        for edges in known.values():
            for edge in edges:
                for one, other in ((edge.a, edge.b), (edge.b, edge.a)):
                    if one == here and other not in found:
                        found.add(other)
                        ring.append(other)
    return found


@given(stories, stories, st.sampled_from(["a1", "a2", "u1"]), st.sampled_from(["u1", "e1@x.org"]))
def test_no_claim_to_come_brings_a_device_back(make_world, story, later, device, person):
    rules = IdentityRules()
    one = ("claimed_user_id" if device == "u1" else "anonymous_id", device)
    other = ("email" if "@" in person else "user_id", person)
    world = told(make_world, story, rules)
    cut(world, one, other)
    honest = world.read(world.leaf(*other))

    for event in later:
        world.event(**{**event, "at_ms": event["at_ms"] + 2 * LATER, "verified": False})

    again = world.read(world.leaf(*other))
    # Of what the person is found by now, all was known when it was cut.
    if set(again.leaves) - again.claims <= set(honest.leaves):
        assert world.leaf(*one) not in again.leaves


def test_an_address_that_both_have_used_does_not_bring_the_device_back(world):
    world.event(1, user_id="u1", email="e1@x.org")
    world.event(2, verified=False, type_name="identify", anonymous_id="a1", user_id="u1",
                email="e1@x.org")  # fmt: skip
    assert "anonymous_id:a1" in world.person("user_id", "u1")

    done = cut(world, ("user_id", "u1"), ("anonymous_id", "a1"))

    assert 2 == len(done.undone)
    assert ["email:e1@x.org", "user_id:u1"] == world.person("user_id", "u1")
    assert ["anonymous_id:a1"] == world.person("anonymous_id", "a1")


def test_what_hangs_on_an_address_alone_leaves_with_it(world):
    world.event(1, user_id="u1", email="e1@x.org", anonymous_id="a1")
    world.event(2, email="e1@x.org", external_ids=[("esp.x", "7")])

    cut(world, ("email", "e1@x.org"), ("user_id", "u1"))

    assert ["anonymous_id:a1", "user_id:u1"] == world.person("user_id", "u1")
    assert ["email:e1@x.org", "esp.x:7"] == world.person("esp.x", "7")


def test_of_two_of_one_type_the_first_named_leaves(world):
    world.event(1, user_id="u1", anonymous_id="a1", email="e1@x.org")
    world.event(2, user_id="u1", anonymous_id="a2")

    cut(world, ("anonymous_id", "a2"), ("anonymous_id", "a1"))

    assert ["anonymous_id:a2"] == world.person("anonymous_id", "a2")
    assert ["anonymous_id:a1", "email:e1@x.org", "user_id:u1"] == world.person("anonymous_id", "a1")


def test_two_users_are_cut_from_each_other_and_a_device_of_both_belongs_to_neither(world):
    world.event(1, user_id="u1", anonymous_id="a1")
    world.event(2, user_id="u2", anonymous_id="a1")
    world.event(3, type_name="alias", user_id="u1", previous_id="u2")
    assert "user_id:u2" in world.person("user_id", "u1")

    cut(world, ("user_id", "u1"), ("user_id", "u2"))

    assert ["user_id:u1"] == [n for n in world.person("user_id", "u1") if n.startswith("user_id")]
    assert {"anonymous_id:a1": "shared_anonymous"}.items() <= world.why("user_id", "u1").items()
