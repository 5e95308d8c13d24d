"""Everything that reads bytes from outside, each as a function of bytes, with seeds to grow from.

A decoder may refuse by one of our coded errors, which must not quote what a person sent: the seeds
hold `CANARY`. Anything else that it raises is a bug.
"""

import gzip
import json
import tempfile
import tomllib
from binascii import crc32
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from penstock.adapters.content.liquid import Limits, LiquidRenderer
from penstock.adapters.decoder.avro import compile_avro
from penstock.adapters.decoder.protobuf import compile_protobuf
from penstock.adapters.log import sqlite as sqlite_log
from penstock.cli.readers import read_csv, read_json_lines
from penstock.core import tokens
from penstock.core.backup import decode_manifest
from penstock.core.catalog.catalog import Catalog
from penstock.core.decision.record import decode_decision
from penstock.core.definitions.versions import decode_table
from penstock.core.errors import EventRejected, PenstockError
from penstock.core.event import SEGMENT, decode_single
from penstock.core.foreign import EventMapping, Foreign, compile_mapper
from penstock.core.identity.vouch import read_token
from penstock.core.leaf import decode_leaf
from penstock.core.record import Version, decode_record, decode_records
from penstock.core.segment import Segment
from penstock.core.wire import frame, unframe
from penstock.edges.collector.body import inflate
from penstock.edges.collector.door import read_envelope
from penstock.edges.collector.edge import ROWS
from penstock.edges.collector.rudderstack import pixel_body
from penstock.flows.decoding import read_json
from penstock.ports.registry import Schema
from penstock.settings import load_settings
from penstock.testing.clock import HandClock
from tests.core.step_records import NOW, PLAN, make_leaf

CANARY = "canary7f@example.com"
GOLDEN = Path(__file__).parent.parent / "golden"
KEY = b"k" * 32
_folder = tempfile.TemporaryDirectory(prefix="fuzz-")
FOLDER = Path(_folder.name)


class Target(NamedTuple):
    """A decoder, what it grows from, and whether an error may hold the canary in spite of all."""

    decode: Callable[[bytes], object]
    seeds: list[bytes]
    excused: Callable[[bytes], bool] = lambda _: False


def check(target: Target, data: bytes) -> None:
    """Decode; a coded error is an answer as good as any, if it quotes no value."""
    try:
        target.decode(data)
    except PenstockError as error:
        require_silent(error, excused=target.excused(data))


def require_silent(error: PenstockError, *, excused: bool = False) -> None:
    """Hold an error to its promise."""
    assert excused or CANARY not in str(error), "an error quotes a value"


def events(data: bytes) -> None:
    row = ROWS[data[0] % len(ROWS)] if data else ROWS[0]
    body = inflate(data[1:], b"", row.body_bytes_max)
    read_envelope(body)
    decoded = row.reading.decode(body, "site")
    for refused in decoded.rejected:
        require_silent(refused.error)


def leaf(data: bytes) -> None:
    # Not encoded again: stored bytes carry a checksum, so what decodes was written by us, and values
    # of two types among the keys of one group, which cannot be sorted, never come from a disk.
    decode_leaf(make_leaf("user_id", "u1"), Version(1, 1), data, PLAN)


def log_blob(data: bytes) -> None:
    row = (0, 2, NOW, sqlite_log.CODEC_ZSTD)
    _log._decode_row((*row, sqlite_log.checksum(*row, data), data), 0)


def log_list(data: bytes) -> None:
    log_blob(zstandard.compress(data))


def segment(data: bytes) -> None:
    """Read a segment whose footer's checksum is right, so that what follows it is read, too."""
    length = int.from_bytes(data[-12:-8], "little")
    if len(data) > 12 and length + 12 <= len(data):
        crc = crc32(data[-12 - length : -12]).to_bytes(4, "little")
        data = data[:-8] + crc + data[-4:]

    def fetch(start: int, size: int) -> bytes:
        return data[start : start + size] if 0 <= start <= len(data) and size >= 0 else b""

    opened = Segment("s", len(data), fetch, lambda raw: raw)
    opened.check()
    opened.find(make_leaf("user_id", "u1"))


def signed(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for verify in (tokens.verify_email, tokens.verify_unsubscribe, tokens.verify_open):
        _allow(verify, KEY, text)
    _allow(tokens.verify_click, KEY, text, f"https://shop.example/{CANARY}")
    _allow(tokens.verify_click, KEY, text, text)
    read_token(text, {"k1": "secret"}, NOW)


def _allow(function: Callable[..., object], *args: Any) -> None:
    try:
        function(*args)
    except PenstockError as error:
        require_silent(error)


DATA = {
    "person": {"name": CANARY, "tags": [CANARY, 1, None, True], "spent": [1234, "GBP"]},
    "items": [{"title": CANARY, "price": "12.50", "url": f"https://s/?e={CANARY}"}] * 3,
}


def liquid(data: bytes) -> None:
    text = data.decode("utf-8", "replace").replace(CANARY, "")
    outcomes = []
    for compile_after in (1, None):
        renderer = LiquidRenderer(FOLDER / "none", limits=LIMITS, compile_after=compile_after)
        try:
            renderer.add("x", text, "x.liquid")
            for _ in range(3):  # the first is interpreted even where it compiles
                outcome = renderer.render("x", DATA)
            outcomes.append(outcome)
        except PenstockError as error:
            require_silent(error)
            outcomes.append(error.code)
    if "now" not in text and "today" not in text:
        assert outcomes[0] == outcomes[1], "compiled and interpreted differ"


def settings(data: bytes) -> None:
    file = FOLDER / "penstock.toml"
    file.write_bytes(data)
    load_settings(file)


def named_so(data: bytes) -> bool:
    """Return whether the canary is a name in a TOML text: names of settings are the author's."""
    try:
        return CANARY in str(_keys(tomllib.loads(data.decode())))
    except (ValueError, RecursionError):
        return False


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _keys(inner)) for key, inner in value.items()]
    return [_keys(inner) for inner in value] if isinstance(value, list) else None


def rows(data: bytes) -> None:
    read = read_json_lines if data.startswith(b"\x01") else read_csv
    file = FOLDER / "rows"
    file.write_bytes(data)
    for row in read(file):
        assert CANARY not in row.fault, "a fault quotes a value"


def stored(data: bytes) -> None:
    for decode in (lambda raw: decode_manifest(raw, "backup"), decode_table, decode_decision):
        _allow(decode, data)


def records(data: bytes) -> None:
    _allow(decode_record, data)
    decode_records([data, data])


LIMITS = Limits()
_log = sqlite_log.SqliteLog(FOLDER / "log.db", HandClock())
_event = {
    "type": "track", "event": "Product Viewed", "userId": CANARY, "messageId": "m-1",
    "timestamp": "2026-11-25T10:00:00Z", "context": {"traits": {"email": CANARY}},
    "properties": {"product_id": "sku-1", "price": 12.5, "note": CANARY, "list": [{"a": None}]},
}  # fmt: skip
_single = json.dumps(_event).encode()
_batch = json.dumps(
    {"batch": [_event, {"type": CANARY}, 1], "writeKey": "k", "sentAt": ""}
).encode()
_bodies = [bytes([number]) + body for number in range(len(ROWS)) for body in (_single, _batch)]
_leaf = (GOLDEN / "leaf-v1.bin").read_bytes()


def foreign(data: bytes) -> None:
    """A record of another producer: the wire format, a format, a mapping, and the decoding of its event."""
    for reader in (_avro, _protobuf, read_json):
        try:
            value = reader(unframe(data).payload)
            body = _mapper(Foreign("t", "", 0, 0, 0, data[:9], data, ()), value)
            assert body is not None, "its mapping takes any record"
            refused = decode_single(body, None, SEGMENT, message_id="m").rejected
        except EventRejected as error:
            require_silent(error)
        else:
            for one in refused:
                require_silent(one.error)


_AVRO = {"type": "record", "name": "R", "fields": [
    {"name": "id", "type": ["null", "string"]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "sum", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "long"}}},
]}  # fmt: skip
_avro = compile_avro(Schema("AVRO", json.dumps(_AVRO)), [])
_protobuf = compile_protobuf(
    Schema("PROTOBUF", 'syntax = "proto3"; message R { string id = 1; int64 at = 2; map<string, R> tags = 3; }'), []
)  # fmt: skip
_mapper = compile_mapper(
    {"page": EventMapping(user_id="id", email="id", timestamp="at", message_id="$key", external_ids={"x": "tags.a.0"})},
    Catalog([]), "connect.fuzz",
)  # fmt: skip
_foreign = [
    frame(1, b"\x02" + bytes([2 * len(CANARY)]) + CANARY.encode() + b"\x02\x04\x07\xc6\x00"),
    frame(1, b"\x00\x0a" + bytes([len(CANARY)]) + CANARY.encode() + b"\x10\x05"),
    frame(1, json.dumps({"id": CANARY, "at": 1.5, "tags": {"a": [1]}}).encode()),
]

TARGETS: dict[str, Target] = {
    "foreign": Target(foreign, _foreign),
    "events": Target(events, [*_bodies, b"\x00" + gzip.compress(_single, mtime=0)]),
    "gzip": Target(lambda data: inflate(data[1:], (b"", b"gzip", b"deflate")[data[:1] < b"a"], 65_536),
                   [b"a" + gzip.compress(_batch * 50, mtime=0), b"b" + _single]),
    "pixel": Target(lambda data: pixel_body(data, "m"),
                    [f"type=track&event=x&properties.email={CANARY}&properties.a.b=1".encode()]),
    "records": Target(records, [(GOLDEN / "record-v1.bin").read_bytes()]),
    "leaf": Target(leaf, [_leaf]),
    "log_blob": Target(log_blob, [zstandard.compress(msgspec.msgpack.encode([b"a", b"b" * 50]))]),
    "log_list": Target(log_list, [msgspec.msgpack.encode([b"a", b"b" * 50])]),
    "segment": Target(segment, [(GOLDEN / "segment-v1.bin").read_bytes()]),
    "tokens": Target(signed, [value.encode() for value in
                              json.loads((GOLDEN / "tokens-v1.json").read_bytes()).values()]
                     + [b"eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiJ1IiwiZXhwIjoxfQ.YQ"]),
    "liquid": Target(liquid, [
        b"{% for i in items %}{{ i.title | upcase | truncate: 5 }}{{ forloop.index }}{% endfor %}",
        b"{% if person.name == 'x' %}{{ person.spent | money }}{% else %}{% assign a = 3 | times: 4 %}{{ a }}{% endif %}",
        b"{% case person.name %}{% when 'a' %}b{% endcase %}{{ items[0].url | url_with: a: 1 }}{{ 1 | decimal: 2 }}",
        b"{% capture x %}{{ person.tags | join: ', ' }}{% endcapture %}{% cycle 'a', 'b' %}{% raw %}{{{% endraw %}",
    ]),
    "settings": Target(settings, [
        f'[project]\nname = "{CANARY}"\n[sources.web]\nkind = "browser"\nwrite_key = "{CANARY}"\n'.encode(),
        f'[server]\nport = "{CANARY}"\n[esp]\nkind = "{CANARY}"\n[decision]\nholdout_share = 0.05\n'.encode(),
    ], named_so),
    "rows": Target(rows, [
        f'id,email,note\n1,{CANARY},"a ""b"""\n2,"{CANARY}\n'.encode(),
        b'\x01\n{"email": "%s", "n": 1.5}\n{"a": NaN}\n' % CANARY.encode(),
    ]),
    "stored": Target(stored, [
        (GOLDEN / "backup-manifest-v1.json").read_bytes(),
        b'{"format": 1, "versions": [], "%s": 1}' % CANARY.encode(),
        msgspec.msgpack.encode([1, CANARY, [], {}]),
    ]),
}  # fmt: skip
