"""Evidence: the strongest source decides a purpose, deny wins, silence means the regime's default."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.consent.evidence import BARE, COLLECT, DISCARD, origin, permitted, stamp, useful
from penstock.core.consent.purpose import PURPOSES, ConsentRules
from penstock.core.errors import DefinitionError
from penstock.core.record import Evidence

OPT_IN = ConsentRules(gpc_denies=("advertising", "analytics"))
OPT_OUT = ConsentRules(regime="opt_out", gpc_denies=("advertising",))
ONETRUST = ConsentRules(categories={"C0002": ("analytics", "measurement"), "C0003": ("personalisation",),
                                    "C0004": ("advertising",), "loyalty": ("rewards",)})  # fmt: skip


def test_silence_is_unknown():
    assert Evidence("unknown", regime="opt_in") == stamp(None, False, {}, OPT_IN)
    assert (frozenset(), frozenset(PURPOSES)) == (
        permitted(stamp(None, False, {}, OPT_IN), OPT_IN), permitted(stamp({}, False, {}, OPT_OUT), OPT_OUT),
    )  # fmt: skip


def test_each_purpose_is_decided_by_its_strongest_source():
    preferences = {"personalisation": True, "advertising": True}
    basis = {"measurement": "legitimate_interest", "personalisation": "contract"}
    evidence = stamp(preferences, True, basis, OPT_IN)
    assert Evidence(
        "gpc", ("measurement", "personalisation"), ("advertising", "analytics"), "opt_in",
        (("measurement", "basis:legitimate_interest"), ("personalisation", "context")),
    ) == evidence  # fmt: skip
    assert ["gpc", "gpc", "context", "basis:legitimate_interest"] == [
        origin(evidence, purpose) for purpose in ("advertising", "analytics", "personalisation", "measurement")
    ]  # fmt: skip


def test_a_persons_denial_beats_a_lawful_basis():
    evidence = stamp({"personalisation": False}, False, {"personalisation": "contract"}, OPT_IN)
    assert ((), ("personalisation",)) == (evidence.granted, evidence.denied)


def test_categories_stand_for_purposes_and_a_denial_wins():
    rules = ConsentRules(categories={"a": ("analytics",), "b": ("analytics", "measurement")})
    evidence = stamp({"a": True, "b": False, "other": True}, False, {}, rules)
    assert ((), ("analytics", "measurement")) == (evidence.granted, evidence.denied)


def test_a_category_of_a_projects_own_purpose():
    assert (*PURPOSES, "rewards") == ONETRUST.purposes
    assert ("rewards",) == stamp({"loyalty": True}, False, {}, ONETRUST).granted
    assert ("rewards",) == stamp({"rewards": True}, False, {}, ONETRUST).granted


def test_a_category_that_shares_a_purposes_name_may_mean_another():
    rules = ConsentRules(categories={"analytics": ("measurement",)})
    assert ("measurement",) == stamp({"analytics": True}, False, {}, rules).granted


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (True, "granted"),
        (False, "denied"),
        (None, ""),
        ("true", "denied"),
        (1, "denied"),
        ({}, "denied"),
    ],
)
def test_what_cannot_be_read_is_a_denial(preference, expected):
    evidence = stamp({"personalisation": preference}, False, {}, OPT_IN)
    found = "granted" if evidence.granted else "denied" if evidence.denied else ""
    assert expected == found


@pytest.mark.parametrize(
    ("preferences", "gpc", "rules", "expected"),
    [
        (None, False, OPT_IN, DISCARD),
        (None, False, OPT_OUT, COLLECT),
        ({"personalisation": True}, False, OPT_IN, COLLECT),
        ({"personalisation": False}, False, OPT_IN, BARE),
        (dict.fromkeys(PURPOSES, False), False, OPT_OUT, BARE),
        (None, True, OPT_IN, BARE),
        (None, True, OPT_OUT, COLLECT),
    ],
)
def test_what_the_edge_does(preferences, gpc, rules, expected):
    assert expected == useful(stamp(preferences, gpc, {}, rules), rules)


def test_a_record_is_judged_by_the_regime_stamped_into_it():
    evidence = stamp(None, False, {}, OPT_OUT)
    assert frozenset(PURPOSES) == permitted(evidence, OPT_IN)
    assert frozenset() == permitted(Evidence("unknown"), OPT_IN)


preferences = st.dictionaries(
    st.sampled_from([*PURPOSES, "C0002", "C0004"]), st.booleans() | st.none()
)
bases = st.dictionaries(st.sampled_from(PURPOSES), st.sampled_from(["contract", "consent"]))


@given(preferences, st.booleans(), bases, st.sampled_from(["opt_in", "opt_out"]))
def test_the_order_of_sources(preferences, gpc, basis, regime):
    rules = ConsentRules(regime=regime, categories=ONETRUST.categories, gpc_denies=("advertising",))
    evidence = stamp(preferences, gpc, basis, rules)
    hash(evidence)
    allowed = permitted(evidence, rules)
    for purpose in rules.purposes:
        said = [value for category, value in preferences.items()
                if value is not None and purpose in rules.purposes_of(category)]  # fmt: skip
        if gpc and purpose == "advertising":
            expected = False
        elif said:
            expected = all(said)
        else:
            expected = purpose in basis or regime == "opt_out"
        assert expected == (purpose in allowed)
    assert not set(evidence.granted) & set(evidence.denied)


@given(preferences, st.booleans(), bases)
def test_a_gpc_signal_never_adds_a_purpose(preferences, gpc, basis):
    with_signal, without = (stamp(preferences, signal, basis, ONETRUST) for signal in (True, False))
    assert permitted(with_signal, ONETRUST) <= permitted(without, ONETRUST)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"regime": "maybe"}, "E133"), ({"categories": {"a": ("not a name",)}}, "E134"),
     ({"gpc_denies": ("",)}, "E134")],
)  # fmt: skip
def test_wrong_rules_are_refused(wrong, code):
    with pytest.raises(DefinitionError) as caught:
        ConsentRules(**wrong)
    assert code == caught.value.code
