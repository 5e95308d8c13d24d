"""Records of Protobuf, read by what protoc makes of the text that a registry has."""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from penstock.core.errors import EventRejected
from penstock.core.wire import split_indexes
from penstock.ports.decoder import Decode
from penstock.ports.registry import Schema

COMPILE_S_MAX: Final = 30
MAIN: Final = "penstock-record.proto"
"""What the schema itself is called; what it imports has the names that it imports by."""
SAID_CHARS_MAX: Final = 500


def compile_protobuf(schema: Schema, references: Sequence[tuple[str, Schema]]) -> Decode:
    """Return what reads the payloads of a Protobuf schema: the message that its indexes name.

    protoc itself compiles the text, in a process of its own: no other reading of the language is sound.

    Raises:
        EventRejected: protoc does not compile it (E332).
    """
    pool = DescriptorPool()
    try:
        for one in _compiled(schema, references).file:
            pool.Add(one)  # what is imported comes before who imports it
        main = pool.FindFileByName(MAIN)
    except (TypeError, KeyError) as error:
        raise _unusable("does not link") from error
    readers: dict[tuple[int, ...], Callable[[bytes], Any]] = {}

    def decode(payload: bytes) -> Any:
        indexes, message = split_indexes(payload)
        reader = readers.get(indexes)
        if reader is None:
            reader = readers[indexes] = _reader(_nested(main, indexes))
        return reader(message)

    return decode


def _compiled(
    schema: Schema, references: Sequence[tuple[str, Schema]]
) -> descriptor_pb2.FileDescriptorSet:
    with tempfile.TemporaryDirectory(prefix="penstock-proto-") as scratch:
        folder = Path(scratch)
        for name, one in ((MAIN, schema), *references):
            parts = PurePosixPath(name).parts
            if not parts or ".." in parts or name.startswith("/") or "\\" in name:
                raise _unusable("imports by a path that leads elsewhere")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(one.text, encoding="utf-8")
        made = folder / "made.bin"
        try:
            done = subprocess.run(  # noqa: S603 - a compiler of our own choice, and no shell
                [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}", "--include_imports",
                 f"--descriptor_set_out={made}", MAIN],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMPILE_S_MAX, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unusable("could not be compiled in time") from error
        if done.returncode or not made.exists():
            said = done.stderr.replace(str(folder), "").strip()[:SAID_CHARS_MAX]
            raise _unusable(f"does not compile: {said}")
        return descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())


def _nested(main: FileDescriptor, indexes: tuple[int, ...]) -> Descriptor:
    try:
        found = list(main.message_types_by_name.values())[indexes[0]]
        for index in indexes[1:]:
            found = found.nested_types[index]
    except IndexError:
        raise EventRejected("E331", "a record names a message that its schema does not have", where="$",
                            fix="send it with a Protobuf serializer of the registry") from None  # fmt: skip
    return found


def _reader(descriptor: Descriptor) -> Callable[[bytes], Any]:
    kind = GetMessageClass(descriptor)

    def read(payload: bytes) -> Any:
        try:
            return _plain(kind.FromString(payload))
        except (DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise EventRejected("E331", "a record does not read back by its Protobuf schema", where="$",
                                fix="send it with the schema that it names") from error  # fmt: skip

    return read


def _plain(message: Message) -> Any:
    """Return a message as JSON has it, its fields by the names of the schema.

    As in Protobuf's own JSON, but 64-bit integers stay integers, and a field without presence is
    there also if it is zero or empty.
    """
    if message.DESCRIPTOR.full_name.startswith("google.protobuf."):
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        values[field.name] = _field(field, getattr(message, field.name))
    return values


def _field(field: Any, value: Any) -> Any:
    inside = field.message_type
    if inside is not None and inside.GetOptions().map_entry:
        of = inside.fields_by_name["value"]
        return {_key(key): _value(of, value[key]) for key in value}
    if field.is_repeated:
        return [_value(field, one) for one in value]
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named is not None else value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _unusable(why: str) -> EventRejected:
    return EventRejected("E332", f"the Protobuf schema of a record {why}", where="$",
                         fix="mend the schema at the registry, and what it imports")  # fmt: skip
