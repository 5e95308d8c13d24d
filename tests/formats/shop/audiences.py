"""Who the campaign is for."""

from penstock.dsl.audiences import audience
from penstock.dsl.slots import feature

viewers = audience("viewers", when=feature("views_7d") > 0, topic="offers")
