"""Who a campaign is for."""

from penstock.dsl.audiences import audience
from penstock.dsl.slots import feature

browsed = audience("browsed", when=feature("views_7d") > 0, topic="offers")
"""Looked at something this week."""

lapsed = audience(
    "lapsed", when=(feature("orders") > 0) & (feature("views_7d") == 0), topic="offers"
)
"""Bought once, and did not look at anything this week."""
