"""Predicates: judged in three values, checked against names, printed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.decision.item import Item
from penstock.core.decision.predicate import (
    AllOf,
    AnyOf,
    Compare,
    Names,
    Node,
    Not,
    Operand,
    Permitted,
    Reference,
    Subscribed,
    View,
    about_person,
    as_node,
    check_predicate,
    describe,
    judge,
)
from penstock.core.errors import DefinitionError


def feature(name: str) -> Reference:
    return Reference("feature", name)


def trait(name: str) -> Reference:
    return Reference("trait", name)


PERSON = {
    "views": 5,
    "share": 0.5,
    "seen": ["a", "b"],
    "top": [{"value": "shoes", "count": 3}],
    "spent": {"GBP": 1999},
    "last_price": [1999, "GBP"],
    "nothing": None,
    "flag": True,
}


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (feature("views") > 3, True),
        (feature("views") > 5, False),
        (feature("views") >= 5, True),
        (feature("views") < 5, False),
        (feature("views") <= 5, True),
        (feature("views") == 5, True),
        (feature("views") != 5, False),
        (feature("share") < 1, True),
        (feature("views") > "3", False),
        (feature("flag") == 1, False),
        (feature("flag") > 0, False),
        (feature("nothing") > 3, False),
        (feature("absent") != "pro", True),
        (~(feature("absent") > 3), True),
        (feature("absent").known(), False),
        (feature("views").known(), True),
        (feature("views").in_(4, 5), True),
        (feature("views").in_(4), False),
        (feature("seen").contains("b"), True),
        (feature("seen").contains("c"), False),
        (feature("top").contains("shoes"), True),
        (feature("spent")["GBP"] > 1000, True),
        (feature("spent")["EUR"] > 0, False),
        (feature("views")["GBP"] > 0, False),
        (feature("last_price") < [2000, "GBP"], True),
        (feature("last_price") < [2000, "EUR"], False),
        (feature("last_price") == [1999, "GBP"], True),
        (feature("views") > feature("share"), True),
        (trait("plan") == "pro", True),
        (trait("plan").in_("free", "pro"), True),
        (trait("plan").contains("r"), True),
        (as_node(feature("seen")), True),
        (as_node(feature("absent")), False),
        (Permitted(purpose="personalisation"), True),
        (Permitted(purpose="advertising"), None),
        (~Permitted(purpose="advertising"), None),
        (Subscribed(topic="news"), True),
        (Subscribed(topic="sales"), None),
        ((feature("views") > 3) & (trait("plan") == "pro"), True),
        ((feature("views") > 9) | (trait("plan") == "pro"), True),
        ((feature("views") > 9) & Permitted(purpose="advertising"), False),
        ((feature("views") > 3) & Permitted(purpose="advertising"), None),
        ((feature("views") > 3) | Permitted(purpose="advertising"), True),
        ((feature("views") > 9) | Permitted(purpose="advertising"), None),
        (feature("hidden") == 1, None),
        (~(feature("hidden") == 1), None),
        (feature("views") > feature("hidden"), None),
        (Reference("item", "category") == "shoes", True),
        (Reference("item", "colour").known(), False),
    ],
    ids=lambda value: describe(value) if isinstance(value, Node) else str(value),
)
def test_a_predicate_is_judged(person, predicate, expected) -> None:
    profile = person(PERSON | {"hidden": 1}, traits={"plan": "pro"}, withheld=("hidden",))
    item = Item("i1", {"category": "shoes"})
    view = View(profile=profile, item=item, refused_topics=frozenset({"sales"}))
    assert expected is judge(predicate, view)


def test_without_a_profile_everything_about_the_person_is_unknown() -> None:
    assert judge(~(feature("views") > 3), View(profile=None)) is None
    assert judge(Permitted(purpose="personalisation"), View(profile=None)) is None


def test_all_topics_refused_is_every_topic_refused(person) -> None:
    view = View(profile=person(), refused_topics=frozenset({"*"}))
    assert judge(Subscribed(topic="news"), view) is None


leaves = st.one_of(
    st.builds(
        lambda name, op, value: Compare(left=Operand("feature", name), op=op, right=value),
        st.sampled_from("abc"),
        st.sampled_from(["==", "!=", "<", ">=", "truthy", "known"]),
        st.integers(0, 3),
    ),
    st.builds(lambda purpose: Permitted(purpose=purpose), st.sampled_from(["p", "q"])),
    st.builds(lambda topic: Subscribed(topic=topic), st.sampled_from(["news"])),
)
predicates = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda parts: AllOf(nodes=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: AnyOf(nodes=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: Not(node=part), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    predicate=predicates,
    values=st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
    hidden=st.sets(st.sampled_from("abc")),
    withdrawn=st.sets(st.sampled_from("pq")),
    refused=st.sets(st.just("news")),
)
def test_withholding_turns_an_answer_into_unknown_or_leaves_it(
    person, predicate, values, hidden, withdrawn, refused
) -> None:
    before = judge(predicate, View(profile=person(values, permitted=("p", "q"))))
    permitted = tuple({"p", "q"} - withdrawn)
    after = judge(
        predicate,
        View(
            profile=person(values, permitted=permitted, withheld=tuple(hidden)),
            refused_topics=frozenset(refused),
        ),
    )
    assert after in (before, None)


def test_a_predicate_has_no_truth_value() -> None:
    for use in (
        lambda: bool(feature("views") > 3),
        lambda: 1 < feature("views") < 3,
        lambda: feature("views") and trait("plan"),
    ):
        with pytest.raises(DefinitionError, match=r"E152.*truth value"):
            use()


def test_what_is_no_plain_value_is_refused_without_quoting_it() -> None:
    with pytest.raises(DefinitionError, match="feature `views` is compared with a object"):
        _ = feature("views") > object()
    with pytest.raises(DefinitionError, match="no name"):
        Reference("trait", "")
    with pytest.raises(DefinitionError, match="a int stands where a predicate is expected"):
        as_node(3)


NAMES = Names(
    features=frozenset({"views_7d"}),
    traits=frozenset({"plan"}),
    purposes=frozenset({"personalisation"}),
    topics=frozenset({"news"}),
)


@pytest.mark.parametrize(
    ("predicate", "code", "guess"),
    [
        (feature("view_7d") > 1, "E150", "did you mean `views_7d`?"),
        (feature("views_7d") > feature("zzz"), "E150", "features.py"),
        (~(trait("plans") == "pro"), "E151", "did you mean `plan`?"),
        (Permitted(purpose="personalization"), "E157", "did you mean `personalisation`?"),
        (Subscribed(topic="new"), "E162", "did you mean `news`?"),
        (Reference("item", "url").known(), "E152", "unless="),
    ],
)
def test_names_are_checked(predicate, code, guess) -> None:
    with pytest.raises(DefinitionError) as error:
        check_predicate(predicate, NAMES, owner="audience `lapsed`", where="audiences.py:4")
    assert code == error.value.code
    assert guess in error.value.fix
    assert "audience `lapsed`" in error.value.what
    assert "audiences.py:4" == error.value.where


def test_known_names_pass_and_a_large_predicate_does_not() -> None:
    good = (feature("views_7d") > 1) & (trait("plan") == "pro") & Subscribed(topic="news")
    check_predicate(good, NAMES, owner="x")
    many = AnyOf(nodes=tuple(feature("views_7d") == n for n in range(100)))
    with pytest.raises(DefinitionError, match="more than 100 parts"):
        check_predicate(many, NAMES, owner="x")


def test_a_predicate_prints_as_one_reads_it() -> None:
    predicate = (feature("views") > 3) & ~(trait("plan").in_("pro", "max") | feature("x").known())
    assert (
        "feature views > 3 and not (trait plan in ('pro', 'max') or feature x is known)"
        == describe(predicate)
    )
    assert "feature spent[GBP] > feature y" == describe(feature("spent")["GBP"] > feature("y"))
    assert "topic news not refused or (p permitted and trait a)" == describe(
        Subscribed(topic="news") | (Permitted(purpose="p") & trait("a"))
    )


def test_double_negation_and_chains_are_flat() -> None:
    one, two, three = (feature(name) > 0 for name in "abc")
    assert one == ~~one
    assert AllOf(nodes=(one, two, three)) == one & two & three
    assert AnyOf(nodes=(one, two, three)) == one | (two | three)


def test_only_what_reads_the_item_alone_is_not_about_the_person() -> None:
    about_item = Reference("item", "category") == "gift"
    assert not about_person(about_item)
    assert about_person(about_item & (feature("views") > 1))
    assert about_person(Permitted(purpose="p"))
