"""The way in: what becomes of one request, from its headers to its answer, without any server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

import msgspec

from penstock.core.errors import EventRejected, PenstockError
from penstock.core.event import SEGMENT, Decoded, Limits
from penstock.core.json_faults import syntax_fault
from penstock.edges.asgi import Answer, json_answer
from penstock.edges.collector.admission import Admission, never_shed, over_quota
from penstock.edges.collector.body import inflate, is_packed, plain_bytes_of
from penstock.edges.collector.keys import KeyRing, WriteKey, require_origin
from penstock.edges.route import Request
from penstock.flows.collect import Collector, Intake, by_reason
from penstock.flows.intake import Reading
from penstock.ports.metrics import Metrics

JOB = re.compile(r"[A-Za-z0-9._:/-]{1,64}")

Headers = dict[bytes, bytes]


class Row(NamedTuple):
    """One path of the collector's table: how its body is read and how large it may be."""

    path: str
    reading: Reading
    """Makes events of the plain body."""
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
    return Row(path, Reading(False, kind, SEGMENT), SEGMENT.event_bytes_max, batch=False,
               summary=f"Take one `{kind}`" if kind else "Take one event, whose body says its type")  # fmt: skip


def batch_row(path: str, summary: str, limits: Limits, *, imports: bool = False) -> Row:
    """Return the row of a path that takes a batch of events."""
    return Row(
        path,
        Reading(True, None, limits),
        limits.batch_bytes_max,
        batch=True,
        summary=summary,
        imports=imports,
    )


class _Envelope(msgspec.Struct):
    """What a body says about itself, beside its events. Everything else is skipped."""

    writeKey: Any = None  # noqa: N815 - the wire's name
    job: Any = None


_NO_ENVELOPE = _Envelope()
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class Watch(Protocol):
    """Told what becomes of requests, while a project's tracking is tested."""

    def took(self, source: str, decoded: Decoded, intake: Intake) -> None:
        """Hear of a request that was answered 200, and of each of its events."""
        ...

    def refused(self, route: str, error: PenstockError) -> None:
        """Hear of a request that was refused as a whole."""
        ...


class Door:
    """Lets requests in. Plain functions of a request, so that any server may call them.

    Args:
        collector: Where events go.
        ring: The write keys.
        admission: The limits.
        metrics: Where refusals are counted.
        watch: Told of every request, if anybody is.
    """

    def __init__(
        self, collector: Collector, ring: KeyRing, admission: Admission, metrics: Metrics,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self.collector = collector
        self.ring = ring
        self.admission = admission
        self.metrics = metrics
        self.watch = watch
        self._shed: dict[str, Callable[[float], None]] = {}

    def pressed(self) -> bool:
        """Return whether there is anybody whom `turns_away` may turn away."""
        return bool(self.admission.pressed())

    def turns_away(self, row: Row, request: Request) -> bool:
        """Return whether a request is not let in, since others wait and nothing is reserved for it.

        This is asked first, and costs little: nothing is looked up, decoded, or, but for a bounded
        share of the time, inflated.

        Raises:
            EventRejected: It cannot be inflated (E372, E373, E374).
        """
        raw, admission = request.body, self.admission
        encoding = request.headers.get(b"content-encoding", b"")
        plain_bytes = plain_bytes_of(raw, encoding, row.body_bytes_max)
        reason = admission.pressed(plain_bytes)
        if not reason:
            return False
        if is_packed(raw, encoding):
            if not admission.may_inflate(plain_bytes):
                self._count_shed(reason)
                return True
            raw = inflate(raw, encoding, row.body_bytes_max)
        if never_shed(raw):
            return False
        self._count_shed(reason)
        return True

    def _count_shed(self, reason: str) -> None:
        self.admission.refused()
        count = self._shed.get(reason)
        if count is None:
            count = self.metrics.bound("penstock_requests_shed_total", reason=reason)
            self._shed[reason] = count
        count(1)

    def take(self, row: Row, request: Request) -> Awaitable[Answer]:
        """Let a request in; awaited, it is the 200: everything in it is durable by then.

        It is judged by key, origin and quota before there is anything to await, and then decoded.

        Raises:
            EventRejected: Nothing in it can be read, or no key is shown (E3xx). Of a body that would show
                the key and is broken, it is said where.
            Overloaded: Nothing was kept; retry later (E410, E430, E431).
            Unavailable: It is not durable (E401, E403).
        """
        headers = request.headers
        encoding = headers.get(b"content-encoding", b"")
        key = self.ring.of_request(headers, request.query)
        if key is not None:
            require_origin(key, headers.get(b"origin", b""))
        body = inflate(request.body, encoding, row.body_bytes_max)
        envelope = read_envelope(body) if key is None or row.imports else _NO_ENVELOPE
        if key is None:
            if envelope is _NO_ENVELOPE:
                _require_readable(body)
            key = self.ring.of_body(envelope.writeKey)
            require_origin(key, headers.get(b"origin", b""))
        seconds = self.admission.spend(key.key)
        if seconds and not never_shed(body):
            self.metrics.count("penstock_requests_shed_total", reason="quota")
            raise over_quota(seconds)
        job = job_of(key, request.query, envelope.job) if row.imports else ""
        work = self.admission.enter(len(body))
        if self.admission.begins_turn():
            asyncio.get_running_loop().call_soon(self.admission.end_turn)
        return self._keep(row, request, key, body, job, work)

    async def _keep(
        self, row: Row, request: Request, key: WriteKey, body: bytes, job: str, work: int
    ) -> Answer:
        try:
            gpc = request.headers.get(b"sec-gpc", b"").strip() == b"1"
            if self.watch is None:
                intake = await self.collector.take_body(
                    key.source, row.reading, body, gpc=gpc, job=job
                )
            else:
                decoded = row.reading.decode(body, key.source.name)
                intake = await self.collector.take(key.source, decoded, gpc=gpc, job=job)
                self.watch.took(key.source.name, decoded, intake)
        finally:
            self.admission.leave(len(body), work)
        if intake.refused or intake.discarded:
            return json_answer(200, answer(intake))
        return _all_accepted(intake.accepted)


def answer(intake: Intake) -> dict[str, Any]:
    """Return the body of the 200 that a collector request gets."""
    body: dict[str, Any] = {"success": True, "accepted": intake.accepted}
    if intake.refused:
        body["rejected"] = [
            {
                "index": r.index,
                "messageId": r.message_id,
                "code": r.code,
                "what": r.what,
                "path": r.path,
            }
            for r in intake.refused
        ]
    if intake.discarded:
        body["discarded"] = len(intake.discarded)
        body["discarded_by_reason"] = by_reason(intake.discarded)
    return body


@lru_cache(maxsize=4_096)
def _all_accepted(accepted: int) -> Answer:
    """Return the answer to a request of which nothing was refused or discarded."""
    return json_answer(200, answer(Intake(accepted, [])))


def read_envelope(body: bytes) -> _Envelope:
    """Return a body's own `writeKey` and `job`; nothing if it is no JSON object.

    What is wrong with such a body is said by the decoder of its events, which says it better.
    """
    try:
        return _decode_envelope(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _NO_ENVELOPE


def _require_readable(body: bytes) -> None:
    """Refuse a body that may show a key, if only it could be read.

    Raises:
        EventRejected: It is not well-formed JSON (E300, E304, E308, E314); `where` says from which byte on.
    """
    if not body.strip():
        return
    try:
        _decode_envelope(body)
    except msgspec.ValidationError:
        return  # JSON, and no object: there is no key in it
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise syntax_fault(body, error) from None


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
