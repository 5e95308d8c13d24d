"""The way in: what becomes of one request, from its headers to its answer, without any server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from penstock.core.errors import EventRejected, Overloaded
from penstock.core.event import SEGMENT, Decoded, Limits, decode_batch, decode_single
from penstock.edges.asgi import Answer, json_answer
from penstock.edges.collector.admission import Admission, never_shed, over_quota
from penstock.edges.collector.body import inflate, require_length
from penstock.edges.collector.keys import KeyRing, WriteKey, require_origin
from penstock.flows.collect import Collector, answer
from penstock.ports.metrics import Metrics

JOB = re.compile(r"[A-Za-z0-9._:/-]{1,64}")

Headers = Mapping[bytes, bytes]


class Row(NamedTuple):
    """One path of the collector's table: how its body is read and how large it may be."""

    path: str
    decode: Callable[[bytes, str], Decoded]
    """Makes events of the plain body and the source's name; raises EventRejected if there is
    nothing to read in it."""
    body_bytes_max: int
    """Cap of the body, as sent and inflated."""
    batch: bool
    summary: str
    imports: bool = False
    """Events carry a job id, whose memory of message ids outlives the usual one."""


def single_row(path: str, kind: str | None) -> Row:
    """Return the row of a path that takes one event.

    Args:
        path: The path.
        kind: The event's type; None if its body says it.
    """

    def decode(body: bytes, source: str) -> Decoded:
        return decode_single(body, kind, SEGMENT, source=source)

    return Row(path, decode, SEGMENT.event_bytes_max, batch=False,
               summary=f"Take one `{kind}`" if kind else "Take one event, whose body says its type")  # fmt: skip


def batch_row(path: str, summary: str, limits: Limits, *, imports: bool = False) -> Row:
    """Return the row of a path that takes a batch of events."""

    def decode(body: bytes, source: str) -> Decoded:
        return decode_batch(body, limits, source=source)

    return Row(path, decode, limits.batch_bytes_max, batch=True, summary=summary, imports=imports)


class Ticket(NamedTuple):
    """What is known of a request before its body is read."""

    key: WriteKey | None
    """None if headers and query show no key: the body must."""
    over: Overloaded | None
    """Why it is refused, unless its body turns out to be one that never is."""
    placed: bool
    """It holds an ordinary place; else it must hold one of the reserve while it is read and taken."""


class _Envelope(msgspec.Struct):
    """What a body says about itself, beside its events. Everything else is skipped."""

    writeKey: Any = None  # noqa: N815 - the wire's name
    job: Any = None


_NO_ENVELOPE = _Envelope()
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class Door:
    """Lets requests in. Plain functions of headers and body, so that any server may call them.

    A server calls `admit` with the headers, reads the body, calls `take`, and `leave` at the end
    whatever happened.

    Args:
        collector: Where events go.
        ring: The write keys.
        admission: The limits.
        metrics: Where refusals are counted.
    """

    def __init__(
        self, collector: Collector, ring: KeyRing, admission: Admission, metrics: Metrics
    ) -> None:
        self.collector = collector
        self.ring = ring
        self.admission = admission
        self.metrics = metrics

    def admit(self, row: Row, headers: Headers, query: bytes) -> Ticket:
        """Judge a request before its body is read: size, key, origin, places, quota, in that order.

        Raises:
            EventRejected: It can never succeed (E371, E372, E375).
        """
        require_length(headers.get(b"content-length", b""), row.body_bytes_max)
        key = self.ring.of_request(headers, query)
        if key is not None:
            require_origin(key, headers.get(b"origin", b""))
        if self.admission.full():
            return Ticket(key, self.admission.overloaded(), placed=False)
        over = None if key is None else self._over_quota(key)
        self.admission.in_flight += 1
        return Ticket(key, over, placed=True)

    def leave(self, ticket: Ticket) -> None:
        """Give the place back that `admit` gave."""
        if ticket.placed:
            self.admission.in_flight -= 1

    async def take(
        self, row: Row, ticket: Ticket, headers: Headers, query: bytes, raw: bytes
    ) -> Answer:
        """Take a body in and return the 200: everything in it is durable by then.

        Raises:
            EventRejected: Nothing in it can be read, or no key is shown (E3xx).
            Overloaded: Nothing was kept; retry later (E410, E430, E431).
            Unavailable: It is not durable (E401, E403).
        """
        body = inflate(raw, headers.get(b"content-encoding", b""), row.body_bytes_max)
        if ticket.over is not None and not never_shed(body):
            raise self._shed(ticket.over)
        key = ticket.key
        envelope = _NO_ENVELOPE
        if key is None or row.imports:
            envelope = read_envelope(body)
        if key is None:
            key = self._key_in_body(envelope, ticket, headers, body)
        job = job_of(key, query, envelope.job) if row.imports else ""
        decoded = row.decode(body, key.source.name)
        gpc = headers.get(b"sec-gpc", b"").strip() == b"1"
        intake = await self.collector.take(key.source, decoded, gpc=gpc, job=job)
        return json_answer(200, answer(intake))

    def _key_in_body(
        self, envelope: _Envelope, ticket: Ticket, headers: Headers, body: bytes
    ) -> WriteKey:
        key = self.ring.of_body(envelope.writeKey)
        require_origin(key, headers.get(b"origin", b""))
        if ticket.over is None:
            over = self._over_quota(key)
            if over is not None and not never_shed(body):
                raise self._shed(over)
        return key

    def _over_quota(self, key: WriteKey) -> Overloaded | None:
        seconds = self.admission.spend(key.key)
        return over_quota(seconds) if seconds else None

    def _shed(self, over: Overloaded) -> Overloaded:
        reason = "quota" if over.code == "E431" else "in_flight"
        self.metrics.count("penstock_requests_shed_total", reason=reason)
        return over


def read_envelope(body: bytes) -> _Envelope:
    """Return a body's own `writeKey` and `job`; nothing if it is no JSON object.

    What is wrong with such a body is said by the decoder of its events, which says it better.
    """
    try:
        return _decode_envelope(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _NO_ENVELOPE


def job_of(key: WriteKey, query: bytes, in_body: object) -> str:
    """Return the job id of an import: from the query, else the body, else one of its source.

    Segment's old clients send none. All imports of a source are one job then: what it sent once is
    not counted again, however often and however late it is imported.

    Raises:
        EventRejected: The id is no short plain text (E376).
    """
    asked: object = parse_qs(query.decode("latin-1")).get("job", [None])[0]
    shown = in_body if asked is None else asked
    if shown is None:
        return f"import/{key.source.name}"
    if not isinstance(shown, str) or JOB.fullmatch(shown) is None:
        raise EventRejected("E376", "the import's job id is no plain text of 1 to 64 characters",
                            fix="use letters, digits and any of . _ : / - in `job`", where="$.job")  # fmt: skip
    return shown
