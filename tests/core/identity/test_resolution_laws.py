"""Resolution over random worlds: order, duplication and the leaf one starts from change nobody."""

from hypothesis import given
from hypothesis import strategies as st
from identity_stories import cuts, rules, stories, told

from penstock.core.identity.edges import fold_edge
from penstock.core.identity.graph import resolve
from penstock.core.identity.identifier import IdentityRules


@given(st.data(), stories, rules, st.lists(cuts, max_size=2))
def test_any_arrival_order_and_duplication_gives_the_same_people(
    make_world, data, story, rules, cut_list
):
    shuffled = data.draw(st.permutations(story + story[:3]))
    one = told(make_world, story, rules, cut_list)
    two = told(make_world, shuffled, rules, cut_list, settle=data.draw(st.booleans()))
    # An edge that is not known when it is cut is cut by the next run's record: compare only worlds
    # whose cuts found their edge, which settling first makes sure of.
    for leaf in one.edges:
        assert one.read(leaf) == two.read(leaf)


@given(st.data(), stories, rules)
def test_the_order_of_what_is_known_does_not_matter(make_world, data, story, rules):
    world = told(make_world, story, rules)
    known = world.everything()
    leaves = data.draw(st.permutations(list(known)))
    shuffled = {leaf: data.draw(st.permutations(known[leaf])) for leaf in leaves}
    for leaf in known:
        assert resolve(leaf, known, rules) == resolve(leaf, shuffled, rules)


@given(stories, rules, st.lists(cuts, max_size=2))
def test_reading_by_frontier_finds_what_reading_everything_finds(
    make_world, story, rules, cut_list
):
    world = told(make_world, story, rules, cut_list)
    known = world.everything()
    for leaf in known:
        lazy = world.read(leaf)
        if not lazy.bounded:
            assert resolve(leaf, known, rules) == lazy


@given(stories, rules, st.lists(cuts, max_size=2))
def test_a_person_is_the_same_from_each_verified_leaf(make_world, story, rules, cut_list):
    world = told(make_world, story, rules, cut_list)
    known = world.everything()
    for leaf in known:
        person = resolve(leaf, known, rules)
        assert leaf in person.leaves
        for member in set(person.leaves) - person.claims:
            again = resolve(member, known, rules)
            assert (person.leaves, person.claims, person.email_leaf) == (
                again.leaves, again.claims, again.email_leaf)  # fmt: skip


@given(stories, rules)
def test_users_are_joined_by_verified_aliases_only_and_within_limits(make_world, story, rules):
    world = told(make_world, story, rules)
    known = world.everything()
    aliased = {frozenset((edge.a, edge.b)) for edges in known.values() for edge in edges
               if edge.rule == "alias" and edge.verified and edge.a_type == edge.b_type == "user_id"}  # fmt: skip
    for leaf in known:
        person = resolve(leaf, known, rules)
        names = [
            world.names[one].partition(":")[0] for one in person.leaves if one not in person.claims
        ]
        users = [one for one in person.leaves if world.names[one].startswith("user_id")]
        if len(users) > 1:
            assert all(any(one in pair and pair <= set(users) for pair in aliased) for one in users)
        for id_type in ("user_id", "email"):
            assert names.count(id_type) <= rules.rule(id_type).limit


@given(stories, rules)
def test_a_claim_is_never_read_the_other_way_round(make_world, story, rules):
    public = [{**event, "verified": False} for event in story]
    world = told(make_world, public, rules)
    for leaf in world.edges:
        person = world.read(leaf)
        if world.names[leaf].partition(":")[0] in {"anonymous_id", "claimed_user_id"}:
            assert (leaf,) == person.leaves
        assert person.claims == frozenset(person.leaves) - {leaf}
        # Nobody is made an address of by a claim.
        assert person.email_leaf in {None, leaf}


@given(stories)
def test_claims_never_add_a_verified_leaf_nor_change_an_address(make_world, story):
    rules = IdentityRules()
    honest = [event for event in story if event["verified"]]
    world, attacked = told(make_world, honest, rules), told(make_world, story, rules)
    for leaf in world.edges:
        before, after = world.read(leaf), attacked.read(leaf)
        assert set(after.leaves) - after.claims <= set(before.leaves)
        if leaf in after.leaves and world.names[leaf].startswith("user_id"):
            assert before.email_leaf == after.email_leaf


@given(stories, stories, st.integers(31, 40))
def test_a_cut_leaves_people_as_if_never_joined(make_world, story, other, at_ms):
    rules = IdentityRules()
    device = "cut-me"
    joined = [{**event, "user_id": "u1", "anonymous_id": device, "email": None, "external_ids": [],
               "type_name": "track", "verified": True} for event in other[:1]]  # fmt: skip
    never, split = told(make_world, story, rules), told(make_world, story + joined, rules)
    split.cut(split.leaf("user_id", "u1"), split.leaf("anonymous_id", device), at_ms)
    for leaf in never.edges:
        assert never.read(leaf) == split.read(leaf)
    assert (split.leaf("anonymous_id", device),) == split.read(
        split.leaf("anonymous_id", device)
    ).leaves


@given(stories, st.integers(0, 8))
def test_an_edge_is_usable_from_the_primarys_side_before_its_link_is_folded(
    make_world, story, count
):
    world = make_world()
    for event in story:
        world.event(**event, settle=False)
    for link in world.waiting:
        # Whatever a link says, the primary's leaf holds it already.
        edge = link.edges[0]
        held = dict(world.edges[edge.a if link.leaf == edge.b else edge.b])
        assert not fold_edge(held, edge)
