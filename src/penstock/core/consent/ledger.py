"""The consent ledger: one commutative register a purpose, folded from events and merged over leaves."""

import msgspec


class ConsentEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands for one purpose on one leaf: an explicit word, and a weaker lawful basis.

    The explicit part is a register: the greatest (at_ms, denied, event_id, source) wins, so the
    latest effective time wins, and deny wins a tie. The basis part keeps the earliest declaration,
    and grants only where nothing explicit stands. Merging is commutative, associative, idempotent.
    """

    at_ms: int = 0
    """When the explicit part takes effect."""
    denied: bool = False
    event_id: int = 0
    source: str = ""
    """`context`, `gpc` or `event`; empty while nobody has said anything explicit."""
    basis_at_ms: int = 0
    basis: str = ""
    """The lawful basis a source declares, such as `contract`; empty if there is none."""
