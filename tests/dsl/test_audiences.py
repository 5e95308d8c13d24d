"""What authors write in audiences.py."""

import pytest

from penstock.core.decision.predicate import Subscribed
from penstock.core.errors import DefinitionError
from penstock.dsl.audiences import audience, subscribed
from penstock.dsl.slots import feature, permitted


def test_an_audience_is_what_was_written_and_where() -> None:
    when = (feature("days_since_order") > 90) & permitted("advertising") & subscribed("sales")
    made = audience("lapsed", when=when, topic="news")
    assert ("lapsed", when, "news", "personalisation") == (
        made.name,
        made.when,
        made.topic,
        made.purpose,
    )
    assert made.where.startswith("test_audiences.py:")


def test_everybody_is_an_audience_and_a_bare_feature_a_predicate() -> None:
    assert audience("everybody").when is None
    assert audience("viewers", when=feature("seen")).when == ~~(~(~feature("seen")))
    assert Subscribed(topic="news") == subscribed("news")


def test_what_is_no_predicate_is_refused() -> None:
    with pytest.raises(DefinitionError, match="E152"):
        audience("all", when=True)
