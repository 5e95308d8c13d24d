"""Records of Avro and Protobuf, written by other libraries' writers, are read as plain values."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.decoder.avro import compile_avro
from penstock.adapters.decoder.protobuf import compile_protobuf
from penstock.core.errors import EventRejected
from penstock.core.literal import Literal
from penstock.core.wire import join_indexes
from penstock.ports.registry import Schema


def avro(schema: Any, *used: Any) -> Any:
    references = [
        (f"r{number}", Schema("AVRO", json.dumps(one))) for number, one in enumerate(used)
    ]
    return compile_avro(Schema("AVRO", json.dumps(schema)), references)


def written(schema: Any, value: Any, *used: Any) -> bytes:
    names: dict[str, Any] = {}
    for one in used:
        fastavro.parse_schema(one, names)
    raw = io.BytesIO()
    fastavro.schemaless_writer(raw, fastavro.parse_schema(schema, names), value)
    return raw.getvalue()


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}  # fmt: skip


AT = datetime(2026, 11, 29, 12, 30, 1, 5000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("long", 7, 7),
        ("double", 19.9, 19.9),
        (["null", "string"], None, None),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("19.90"), Literal("19.90")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 0}, Decimal(1900), Literal("1900")),
        ({"type": "long", "logicalType": "timestamp-millis"}, AT, "2026-11-29T12:30:01.005000+00:00"),
        ({"type": "int", "logicalType": "date"}, date(2026, 11, 29), "2026-11-29"),
        ({"type": "string", "logicalType": "uuid"}, UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("bytes", b"\x00\xff", "AP8="),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
        ({"type": "map", "values": "int"}, {"a": 1}, {"a": 1}),
        ({"type": "array", "items": "string"}, ["a"], ["a"]),
    ],
    ids=["long", "double", "null", "decimal", "whole", "instant", "date", "uuid", "bytes", "enum", "map", "array"],
)  # fmt: skip
def test_avro_values_become_plain(kind: Any, value: Any, expected: Any) -> None:
    schema = record(x=kind)
    found = avro(schema)(written(schema, {"x": value}))
    assert {"x": expected} == found
    assert type(expected) is type(found["x"])


def test_avro_schemas_use_others() -> None:
    item = {"type": "record", "name": "Item", "namespace": "shop", "fields": [{"name": "id", "type": "string"}]}  # fmt: skip
    order = record(items={"type": "array", "items": "shop.Item"})
    raw = written(order, {"items": [{"id": "a"}]}, item)
    assert {"items": [{"id": "a"}]} == avro(order, item)(raw)
    with pytest.raises(EventRejected, match="E332"):
        avro(order)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": "null"},
        record(x={"type": "array", "items": {"type": "record", "name": "N", "fields": []}}),
        record(x={"type": "map", "values": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}}),
        "nothing", 7, {"type": "enum"}, {"type": "record"},
    ],
    ids=["nulls", "empty records", "empty fixed", "unknown", "a number", "no symbols", "no name"],
)  # fmt: skip
def test_avro_schemas_that_bound_nothing_or_are_none_are_refused(schema: Any) -> None:
    with pytest.raises(EventRejected, match="E332"):
        avro(schema)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_avro_are_refused(payload: bytes) -> None:
    schema = record(a="string", b={"type": "array", "items": "long"}, c={"type": "map", "values": "R"},
                    d={"type": "long", "logicalType": "timestamp-millis"})  # fmt: skip
    decode = avro(schema)
    refused = ""
    try:
        decode(payload)
    except EventRejected as error:
        refused = error.code
    assert refused in ("", "E331")


def test_avro_is_read_to_its_end() -> None:
    schema = record(a="string")
    with pytest.raises(EventRejected, match="E331"):
        avro(schema)(written(schema, {"a": "x"}) + b"\x00")


# ------------------------------------------------------------------------------------ Protobuf

ITEM = 'syntax = "proto3";\npackage shop;\nmessage Item { string sku = 1; }\n'
ORDER = """syntax = "proto3";
package shop;
import "shop/item.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum State { UNKNOWN = 0; PAID = 1; }
message Order {
  string id = 1;
  int64 cents = 2;
  repeated Item items = 3;
  State state = 4;
  google.protobuf.Timestamp at = 5;
  google.protobuf.StringValue note = 6;
  optional int32 rank = 7;
  map<string, int64> counts = 8;
  bytes raw = 9;
  bool gift = 10;
  double weight = 11;
  oneof who { string user = 12; string guest = 13; }
  message Line { uint64 number = 1; }
  Line line = 14;
}
message Refund { string id = 1; }
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The classes of Order and Refund, made by protoc for the producer."""
    folder = tmp_path_factory.mktemp("proto")
    (folder / "shop").mkdir()
    (folder / "shop" / "item.proto").write_text(ITEM)
    (folder / "order.proto").write_text(ORDER)
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", "--include_imports",
                    f"--descriptor_set_out={folder}/out", "order.proto"], check=True)  # fmt: skip
    pool = DescriptorPool()
    for one in descriptor_pb2.FileDescriptorSet.FromString((folder / "out").read_bytes()).file:
        pool.Add(one)

    def named(name: str) -> Any:
        return GetMessageClass(pool.FindMessageTypeByName(name))

    return named


@pytest.fixture(scope="module")
def read_order() -> Any:
    return compile_protobuf(Schema("PROTOBUF", ORDER), [("shop/item.proto", Schema("PROTOBUF", ITEM))])  # fmt: skip


def sent(message: Any, *indexes: int) -> bytes:
    return join_indexes(indexes or (0,), message.SerializeToString())


def test_a_protobuf_record_in_full(messages: Any, read_order: Any) -> None:
    order = messages("shop.Order")(
        id="o1", cents=2**53 + 1, state=1, rank=0, raw=b"\xff", weight=0.5, guest="g", counts={"a": 2**40}
    )  # fmt: skip
    order.items.add(sku="s1")
    order.at.seconds = 1_700_000_000
    order.note.value = "n"
    order.line.number = 2**63
    assert {
        "id": "o1", "cents": 2**53 + 1, "items": [{"sku": "s1"}], "state": "PAID", "at": "2023-11-14T22:13:20Z",
        "note": "n", "rank": 0, "counts": {"a": 2**40}, "raw": "/w==", "gift": False, "weight": 0.5, "guest": "g",
        "line": {"number": 2**63},
    } == read_order(sent(order))  # fmt: skip


def test_what_is_zero_is_there_and_what_is_absent_is_not(messages: Any, read_order: Any) -> None:
    assert {
        "id": "", "cents": 0, "items": [], "state": "UNKNOWN", "counts": {}, "raw": "", "gift": False, "weight": 0.0,
    } == read_order(sent(messages("shop.Order")()))  # fmt: skip


def test_the_indexes_name_the_message(messages: Any, read_order: Any) -> None:
    assert {"id": "r"} == read_order(sent(messages("shop.Refund")(id="r"), 1))
    assert {"number": 3} == read_order(sent(messages("shop.Order.Line")(number=3), 0, 1))
    for indexes in ((2,), (0, 9), (1, 0)):
        with pytest.raises(EventRejected, match="E331"):
            read_order(sent(messages("shop.Refund")(id="r"), *indexes))


def test_an_enum_that_is_not_known_is_its_number(messages: Any, read_order: Any) -> None:
    assert 9 == read_order(sent(messages("shop.Order")(state=9)))["state"]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_protobuf_are_refused(payload: bytes) -> None:
    refused = ""
    try:
        _READ(b"\x00" + payload)
    except EventRejected as error:
        refused = error.code
    assert refused in ("", "E331")


_READ = compile_protobuf(Schema("PROTOBUF", ITEM), [])


@pytest.mark.parametrize(
    ("text", "references", "said"),
    [
        ("message {", [], "does not compile"),
        ('syntax = "proto3"; import "gone.proto";', [], "gone.proto"),
        ('syntax = "proto3";', [("../up.proto", ITEM)], "leads elsewhere"),
        ('syntax = "proto3";', [("/etc/up.proto", ITEM)], "leads elsewhere"),
    ],
    ids=["syntax", "import", "up", "root"],
)
def test_protobuf_that_does_not_compile_is_told_with_protocs_words(
    text: str, references: Sequence[tuple[str, str]], said: str
) -> None:
    with pytest.raises(EventRejected, match="E332") as told:
        compile_protobuf(Schema("PROTOBUF", text), [(name, Schema("PROTOBUF", one)) for name, one in references])  # fmt: skip
    assert said in told.value.what
    assert "/tmp" not in told.value.what
