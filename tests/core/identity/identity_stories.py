"""What the identity laws draw: random stories of events, rules, cuts, and worlds in which they happen."""

from hypothesis import strategies as st

from penstock.core.identity.identifier import IdentityRules

LIMITS = {"anonymous_id": 3, "email": 2, "user_id": 2, "phone": 1}


def some(*values):
    return st.none() | st.sampled_from(values)


events = st.fixed_dictionaries({
    "at_ms": st.integers(1, 30),
    "verified": st.booleans(),
    "type_name": st.sampled_from(["identify", "track", "track", "alias"]),
    "user_id": some("u1", "u2", "u3"),
    "anonymous_id": some("a1", "a2", "a3", "a4"),
    "email": some("e1@x.org", "e2@x.org", "e3@x.org"),
    "external_ids": st.lists(st.sampled_from([("phone", "11111"), ("phone", "22222"), ("esp.x", "7"),
                                              ("user_id", "u2")]), max_size=1),
    "previous_id": some("u1", "u2", "a1"),
})  # fmt: skip
cuts = st.tuples(
    st.sampled_from(["u1", "u2", "u3"]), st.sampled_from(["a1", "a2", "a3"]), st.integers(1, 30)
)
stories = st.lists(events, min_size=1, max_size=9)
rules = st.builds(
    lambda policy, limits: IdentityRules.with_overrides(shared_anonymous=policy, limits=limits),
    st.sampled_from(["neither", "first"]),
    st.sampled_from([{}, LIMITS]),
)


def told(make_world, story, rules, cut_list=(), settle=True):
    world = make_world(rules)
    for event in story:
        world.event(**event, settle=settle)
    world.settle()
    for user, device, at_ms in cut_list:
        world.cut(world.leaf("user_id", user), world.leaf("anonymous_id", device), at_ms)
    return world
