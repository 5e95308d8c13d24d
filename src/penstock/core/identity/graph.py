"""What the engine asks of identity: fold edges, read who is one person, merge their traits."""

from penstock.core.identity.edges import fold_edge, merge_edges, would_change
from penstock.core.identity.resolution import Excluded, Resolution, explore, frontier, resolve
from penstock.core.identity.traits import Trait, merge_traits
from penstock.core.record import Edge

__all__ = [
    "Edge",
    "Excluded",
    "Resolution",
    "Trait",
    "explore",
    "fold_edge",
    "frontier",
    "merge_edges",
    "merge_traits",
    "resolve",
    "would_change",
]
