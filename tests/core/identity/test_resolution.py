"""Who is one person: the rules, one example each."""

from penstock.core.identity.graph import Excluded, explore, frontier, resolve
from penstock.core.identity.identifier import IdentityRules

ALICE = ["anonymous_id:a1", "email:alice@x.org", "user_id:alice"]


def alice(world):
    world.event(10, user_id="alice", anonymous_id="a1", email="alice@x.org", type_name="identify")


def test_an_unknown_leaf_is_alone(world):
    assert ["user_id:nobody"] == world.person("user_id", "nobody")


def test_a_person_is_found_from_each_leaf(world):
    alice(world)
    assert [ALICE] * 3 == [
        world.person("user_id", "alice"), world.person("anonymous_id", "a1"), world.person("email", "alice@x.org"),
    ]  # fmt: skip


def test_edges_used_carry_their_provenance(world):
    alice(world)
    resolution = world.read(world.leaf("user_id", "alice"))
    assert [("identify", 10, True)] * 2 == [(e.rule, e.at_ms, e.verified) for e in resolution.edges]


def test_a_split_is_exact(world):
    world.event(5, user_id="alice", email="alice@x.org")
    without = world.everything()
    world.event(10, user_id="alice", anonymous_id="a1")
    world.event(20, user_id="alice", anonymous_id="a2")
    world.cut(world.leaf("user_id", "alice"), world.leaf("anonymous_id", "a1"), 30)
    world.cut(world.leaf("user_id", "alice"), world.leaf("anonymous_id", "a2"), 30)
    start = world.leaf("user_id", "alice")
    assert resolve(start, without, world.rules) == world.read(start)
    assert ["anonymous_id:a1"] == world.person("anonymous_id", "a1")


def test_a_join_after_a_cut_joins_again_and_a_claim_does_not(world):
    alice(world)
    world.cut(world.leaf("user_id", "alice"), world.leaf("anonymous_id", "a1"), 30)
    world.event(40, verified=False, user_id="alice", anonymous_id="a1")
    assert ["anonymous_id:a1"] == world.person("anonymous_id", "a1")
    assert ["email:alice@x.org", "user_id:alice"] == world.person("user_id", "alice")
    world.event(50, user_id="alice", anonymous_id="a1")
    assert ALICE == world.person("anonymous_id", "a1")


def test_a_device_of_two_people_belongs_to_neither(world):
    alice(world)
    world.event(20, user_id="bob", anonymous_id="a1")
    assert ["email:alice@x.org", "user_id:alice"] == world.person("user_id", "alice")
    assert ["user_id:bob"] == world.person("user_id", "bob")
    assert ["anonymous_id:a1"] == world.person("anonymous_id", "a1")
    assert {"anonymous_id:a1": "shared_anonymous"} == world.why("user_id", "bob")


def test_a_device_of_two_people_belongs_to_the_first_if_the_project_says_so(make_world):
    world = make_world(IdentityRules.with_overrides(shared_anonymous="first"))
    world.event(20, user_id="bob", anonymous_id="a1")
    alice(world)
    assert ALICE == world.person("user_id", "alice") == world.person("anonymous_id", "a1")
    assert ["user_id:bob"] == world.person("user_id", "bob")


def test_a_stranger_who_claims_takes_a_device_away_but_reads_nothing(world):
    alice(world)
    world.event(20, verified=False, user_id="mallory", anonymous_id="a1")
    assert ["user_id:mallory"] == world.person("user_id", "mallory")
    assert "anonymous_id:a1" not in world.person("user_id", "alice")


def test_an_identified_person_is_never_absorbed_by_an_identify(world):
    alice(world)
    world.event(20, user_id="bob", external_ids=[("user_id", "alice")], type_name="identify")
    world.event(21, user_id="bob", email="alice@x.org", type_name="identify")
    assert ["user_id:bob"] == world.person("user_id", "bob")
    assert ALICE == world.person("user_id", "alice")
    assert {"user_id:alice": "identified", "email:alice@x.org": "other_person"} == world.why(
        "user_id", "bob"
    )


def test_two_users_may_share_an_address_and_both_can_be_written_to(world):
    alice(world)
    world.event(20, user_id="bob", email="alice@x.org")
    email = world.leaf("email", "alice@x.org")
    assert [email, email] == [
        world.read(world.leaf("user_id", u)).email_leaf for u in ("alice", "bob")
    ]
    assert ALICE == world.person("email", "alice@x.org")


def test_an_alias_joins_users(world):
    alice(world)
    world.event(20, user_id="alice2", anonymous_id="a9")
    world.event(30, user_id="alice2", previous_id="alice", type_name="alias")
    both = sorted([*ALICE, "user_id:alice2", "anonymous_id:a9", "anonymous_id:alice"])
    assert [both] * 3 == [
        world.person("user_id", "alice"), world.person("anonymous_id", "a9"), world.person("anonymous_id", "a1"),
    ]  # fmt: skip


def test_an_alias_joins_users_even_after_a_mere_identify(world):
    world.event(10, user_id="u1", external_ids=[("user_id", "u2")], type_name="identify")
    world.event(20, user_id="u1", previous_id="u2", type_name="alias")
    assert ["anonymous_id:u2", "user_id:u1", "user_id:u2"] == world.person("user_id", "u2")


def test_aliases_stop_at_the_limit_and_the_earliest_stay(make_world):
    world = make_world(IdentityRules.with_overrides(limits={"user_id": 2}))
    world.event(20, user_id="u3", previous_id="u1", type_name="alias")
    world.event(10, user_id="u2", previous_id="u1", type_name="alias")
    users = [one for one in world.person("user_id", "u1") if one.startswith("user_id")]
    assert ["user_id:u1", "user_id:u2"] == users
    assert "limit" == world.why("user_id", "u1")["user_id:u3"]
    assert ["user_id:u3"] == [
        one for one in world.person("user_id", "u3") if one.startswith("user_id")
    ]


def test_a_device_shared_by_aliased_users_is_not_shared(world):
    world.event(10, user_id="u1", anonymous_id="a")
    world.event(11, user_id="u2", anonymous_id="a")
    world.event(12, user_id="u2", previous_id="u1", type_name="alias")
    assert "anonymous_id:a" in world.person("user_id", "u1")
    assert world.person("user_id", "u1") == world.person("anonymous_id", "a")


def test_a_limit_keeps_the_newest_of_a_type(make_world):
    world = make_world(IdentityRules.with_overrides(limits={"anonymous_id": 2}))
    for at, device in [(30, "a3"), (10, "a1"), (20, "a2")]:
        world.event(at, user_id="u", anonymous_id=device)
    assert ["anonymous_id:a2", "anonymous_id:a3", "user_id:u"] == world.person("user_id", "u")
    assert {"anonymous_id:a1": "limit"} == world.why("user_id", "u")
    assert ["anonymous_id:a1"] == world.person("anonymous_id", "a1")


def test_without_a_user_the_email_is_the_hub(world):
    world.event(10, anonymous_id="a1", email="e@x.org")
    world.event(11, anonymous_id="a2", email="e@x.org")
    expected = ["anonymous_id:a1", "anonymous_id:a2", "email:e@x.org"]
    assert [expected] * 3 == [
        world.person("email", "e@x.org"), world.person("anonymous_id", "a1"), world.person("anonymous_id", "a2"),
    ]  # fmt: skip
    assert world.leaf("email", "e@x.org") == world.read(world.leaf("anonymous_id", "a1")).email_leaf


def test_when_the_email_finds_a_user_its_devices_come_along(world):
    world.event(10, anonymous_id="a1", email="e@x.org")
    world.event(20, user_id="u", email="e@x.org")
    expected = ["anonymous_id:a1", "email:e@x.org", "user_id:u"]
    assert [expected] * 3 == [
        world.person("user_id", "u"), world.person("email", "e@x.org"), world.person("anonymous_id", "a1"),
    ]  # fmt: skip


def test_a_device_with_two_emails_and_no_user_belongs_to_neither(world):
    world.event(10, anonymous_id="a1", email="e@x.org")
    world.event(11, anonymous_id="a1", email="f@x.org")
    assert ["email:e@x.org"] == world.person("email", "e@x.org")
    assert ["anonymous_id:a1"] == world.person("anonymous_id", "a1")
    assert world.read(world.leaf("anonymous_id", "a1")).email_leaf is None


def test_a_stronger_type_wins_a_leaf(world):
    world.event(10, email="e@x.org", external_ids=[("esp.x", "77")])
    world.event(20, user_id="u", external_ids=[("esp.x", "77")])
    assert ["esp.x:77", "user_id:u"] == world.person("esp.x", "77")
    assert {"esp.x:77": "other_person"} == world.why("email", "e@x.org")


def test_a_claim_is_read_by_the_claimed_and_reads_nothing(world):
    alice(world)
    world.event(20, verified=False, user_id="alice", anonymous_id="a7")
    assert sorted([*ALICE, "anonymous_id:a7"]) == world.person("user_id", "alice")
    assert sorted([*ALICE, "anonymous_id:a7"]) == world.person("email", "alice@x.org")
    assert ["anonymous_id:a7"] == world.person("anonymous_id", "a7")
    resolution = world.read(world.leaf("user_id", "alice"))
    assert frozenset({world.leaf("anonymous_id", "a7")}) == resolution.claims
    assert resolution.leaves[-1] == world.leaf("anonymous_id", "a7")


def test_a_claimed_user_id_is_read_with_the_user_id_of_the_same_value(world):
    world.event(10, verified=False, user_id="u")
    assert ["claimed_user_id:u", "user_id:u"] == world.person("user_id", "u")
    assert ["claimed_user_id:u"] == world.person("claimed_user_id", "u")


def test_a_public_identify_with_an_address_serves_reads_by_either(world):
    world.event(
        10, verified=False, user_id="u", anonymous_id="a", email="e@x.org", type_name="identify"
    )
    assert ["anonymous_id:a", "user_id:u"] == world.person("user_id", "u")
    assert ["anonymous_id:a", "email:e@x.org"] == world.person("email", "e@x.org")
    assert world.read(world.leaf("user_id", "u")).email_leaf is None


def test_an_address_does_not_read_a_device_that_named_another(world):
    world.event(10, verified=False, user_id="u", anonymous_id="a", email="e@x.org")
    world.event(11, verified=False, user_id="u", anonymous_id="a", email="friend@x.org")
    assert ["email:friend@x.org"] == world.person("email", "friend@x.org")
    assert ["anonymous_id:a", "user_id:u"] == world.person("user_id", "u")


def test_an_address_does_not_read_a_device_that_is_somebody_elses(world):
    alice(world)
    world.event(20, verified=False, anonymous_id="a1", email="bob@x.org")
    assert ["email:bob@x.org"] == world.person("email", "bob@x.org")
    assert {"anonymous_id:a1": "other_person"} == world.why("email", "bob@x.org")
    assert ALICE == world.person("user_id", "alice")


def test_a_device_that_claims_two_users_is_read_by_neither(world):
    world.event(10, verified=False, user_id="u1", anonymous_id="a")
    world.event(11, verified=False, user_id="u2", anonymous_id="a")
    assert [["user_id:u1"], ["user_id:u2"]] == [world.person("user_id", u) for u in ("u1", "u2")]


def test_groups_join_nobody(world):
    world.event(10, user_id="u1", group_id="g", type_name="group")
    world.event(11, user_id="u2", group_id="g", type_name="group")
    assert ["user_id:u1"] == world.person("user_id", "u1")
    assert ["group_id:g"] == world.person("group_id", "g")


def test_the_email_stated_last_is_the_address(world):
    world.event(10, user_id="u", email="old@x.org")
    world.event(20, user_id="u", email="new@x.org")
    assert world.leaf("email", "new@x.org") == world.read(world.leaf("user_id", "u")).email_leaf
    world.event(30, user_id="u", email="old@x.org")
    assert (
        world.leaf("email", "old@x.org") == world.read(world.leaf("email", "new@x.org")).email_leaf
    )


def test_a_blocked_leaf_joins_nobody(world):
    alice(world)
    junk = world.leaf("anonymous_id", "a1")
    start = world.leaf("user_id", "alice")
    resolution = resolve(start, world.everything(), world.rules, {junk})
    assert (Excluded(junk, "blocked"),) == resolution.excluded
    assert junk not in resolution.leaves
    assert (junk,) == resolve(junk, world.everything(), world.rules, {junk}).leaves
    assert junk not in frontier(
        start, {start: list(world.edges[start].values())}, world.rules, {junk}
    )


def test_a_common_person_takes_two_reads_and_a_cold_one_at_most_four(world):
    alice(world)
    world.read(world.leaf("user_id", "alice"))
    assert 2 == world.reads
    world.event(20, user_id="alice", email="second@x.org")
    world.event(21, anonymous_id="a5", email="second@x.org")
    for start in [("anonymous_id", "a1"), ("email", "alice@x.org"), ("user_id", "alice")]:
        assert "anonymous_id:a5" in world.person(*start)
        assert world.reads <= 4


def test_beyond_three_hops_the_answer_says_so(world):
    for number in range(6):
        world.event(
            number + 1, user_id=f"v{number + 1}", previous_id=f"v{number}", type_name="alias"
        )
    assert world.read(world.leaf("user_id", "v0")).bounded
    assert world.reads <= 4


def test_more_leaves_than_one_person_may_have(make_world):
    limits = {"anonymous_id": 64, "email": 64}
    world = make_world(IdentityRules.with_overrides(limits=limits))
    for number in range(1, 51):
        world.event(number, user_id="u", anonymous_id=f"a{number}", email=f"e{number}@x.org")
    resolution = world.read(world.leaf("user_id", "u"))
    assert (64, True) == (len(resolution.leaves), resolution.bounded)
    assert {"bound"} == {one.reason for one in resolution.excluded}


def test_the_start_itself_must_be_known(world):
    start = world.leaf("user_id", "u")
    assert [start] == frontier(start, {}, world.rules)
    assert resolve(start, {}, world.rules).bounded


def test_what_is_explored_at_once_is_the_frontier_and_the_resolution(world):
    alice(world)
    start, everything = world.leaf("anonymous_id", "a1"), world.everything()
    known, wanted = {}, [start]
    while wanted:
        known |= {leaf: everything.get(leaf, []) for leaf in wanted}
        wanted, resolution = explore(start, known, world.rules)
        assert frontier(start, known, world.rules) == wanted
        assert resolve(start, known, world.rules) == resolution
    assert 3 == len(resolution.leaves)
    assert ([start], True) == (
        (first := explore(start, {}, world.rules))[0], first[1].bounded,
    )  # fmt: skip
