"""A looser or tighter setting of consent is told as what it means for people."""

from typing import Any

import pytest

from penstock.core.definitions.consent_effects import consent_effects

SERVES: dict[str, Any] = {
    "consent.regime": "opt_in",
    "consent.categories": {"C1": ["analytics"]},
    "consent.gpc_denies": ["personalisation", "measurement", "analytics", "advertising"],
    "project.undeclared": "reject",
    "sources.basis": {"crm": {"personalisation": "contract"}},
}
BASIS = "sources.basis"


def told(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, bool]]:
    effects = list(consent_effects(before, after))
    for _, what, looser in effects:
        assert what.startswith("loosened: " if looser else "tightened: ") or "lawful basis" in what
    return [(path, looser) for path, _, looser in effects]


@pytest.mark.parametrize(
    ("name", "value", "path", "back"),
    [
        ("consent.regime", "opt_out", "consent.regime", False),
        ("consent.gpc_denies", ["personalisation", "measurement", "analytics"], "consent.gpc_denies", False),
        ("consent.categories", {"C1": ["analytics", "advertising"]}, "consent.categories.C1", False),
        ("consent.categories", {"C1": ["analytics"], "C2": ["advertising"]}, "consent.categories.C2", False),
        ("project.undeclared", "keep", "project.undeclared", False),
        (BASIS, {"crm": {"personalisation": "contract", "analytics": "consent"}},
         "sources.crm.basis.analytics", False),
        (BASIS, {"crm": {"personalisation": "contract"}, "web": {"analytics": "contract"}},
         "sources.web.basis.analytics", False),
        # Another basis is no less than before, either way.
        (BASIS, {"crm": {"personalisation": "legitimate_interest"}}, "sources.crm.basis.personalisation", True),
    ],
)  # fmt: skip
def test_a_looser_setting_is_looser_and_its_way_back_tighter(
    name: str, value: Any, path: str, back: bool
) -> None:
    looser = SERVES | {name: value}
    assert told(SERVES, looser) == [(path, True)]
    assert told(looser, SERVES) == [(path, back)]


def test_undeclared_events_leave_less_if_they_are_dropped() -> None:
    assert told(SERVES, SERVES | {"project.undeclared": "drop"}) == [("project.undeclared", False)]


@pytest.mark.parametrize(
    "changed", [{"consent.regime": "opt_out"}, {BASIS: {"crm": {"analytics": "contract"}}}]
)
def test_a_denial_that_is_no_longer_heard_is_looser(changed: dict[str, Any]) -> None:
    """Where a purpose is permitted without consent, a category that meant it was the way to refuse."""
    serves = SERVES | changed
    assert told(serves, serves | {"consent.categories": {}}) == [("consent.categories.C1", True)]


def test_a_category_that_means_the_purpose_of_its_name_may_say_so() -> None:
    assert told(SERVES | {"consent.categories": {}},
                SERVES | {"consent.categories": {"analytics": ["analytics"]}}) == []  # fmt: skip


def test_nothing_is_said_of_what_an_earlier_version_did_not_keep() -> None:
    earlier = {name: value for name, value in SERVES.items() if name != BASIS}
    assert told(earlier, SERVES) == []
    assert told({}, {}) == []
