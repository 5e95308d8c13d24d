"""What clients may cost a server, and what those hear who go over it."""

from __future__ import annotations

import msgspec

from penstock.core.errors import EventRejected, Overloaded


class Limits(msgspec.Struct, frozen=True):
    """What connections may cost: each of them, and all together.

    Attributes:
        head_bytes: Of the request line and headers.
        head_s: Seconds from a request's first byte to the end of its headers.
        request_s: Seconds from a request's first byte to its last.
        write_s: Seconds in which a client must take something of an answer that is stuck.
        linger_s: Seconds that a refused client may go on sending, so that it can read why.
        ahead: Requests of one connection that are read and not yet begun.
        cold_body_bytes: Of the body of a request that no hot route takes.
        held_bytes: Of all requests, from their first bytes to their answers; beyond it larger ones
            are refused.
        small_head_bytes: A head that is never refused for the memory of others.
        small_body_bytes: A body that is never refused for the memory of others: one event.
        connections: Open at once; beyond it those that have waited the longest give way.
        idle_connections: Open at once without a request; beyond it the longest idle are closed.
    """

    head_bytes: int = 32 * 1024
    head_s: int = 15
    request_s: int = 30
    write_s: int = 30
    linger_s: int = 2
    ahead: int = 100
    cold_body_bytes: int = 16 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024
    small_head_bytes: int = 8 * 1024
    small_body_bytes: int = 32 * 1024
    connections: int = 16_000
    idle_connections: int = 12_000


def not_http() -> EventRejected:
    """Return the refusal of bytes that are no request."""
    return EventRejected("E384", "what arrived is not an HTTP/1 request",
                         fix="check the client, and what stands between it and here")  # fmt: skip


def too_large(bytes_max: int) -> EventRejected:
    """Return the refusal of a body."""
    return EventRejected("E372", f"the body is larger than {bytes_max} bytes",
                         fix="send fewer events a batch, and less in each", where="$")  # fmt: skip


def head_too_large(bytes_max: int) -> EventRejected:
    """Return the refusal of a request line with its headers."""
    return EventRejected("E383", f"the request line and headers are larger than {bytes_max} bytes",
                         fix="send fewer and shorter headers; put what is long into the body")  # fmt: skip


def too_much_ahead() -> Overloaded:
    """Return the refusal of a client that does not wait for answers."""
    return Overloaded("E434", "too many requests were sent ahead on one connection",
                      fix="wait for answers before sending more; send batches")  # fmt: skip


def no_memory() -> Overloaded:
    """Return the refusal of a large request while others fill the memory."""
    return Overloaded("E435", "more requests are arriving than there is memory for",
                      fix="retry after the time in Retry-After")  # fmt: skip


def too_many_connections() -> Overloaded:
    """Return the refusal of a connection while all others are at work."""
    return Overloaded("E435", "more connections are open than there is room for",
                      fix="retry after the time in Retry-After")  # fmt: skip
