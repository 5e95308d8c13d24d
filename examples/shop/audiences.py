"""Who a campaign is for."""

from penstock.dsl.audiences import audience
from penstock.dsl.slots import feature

browsed = audience("browsed", when=feature("views_7d") > 0, topic="offers")

lapsed = audience(
    "lapsed", when=(feature("orders") > 0) & (feature("views_7d") == 0), topic="offers"
)
