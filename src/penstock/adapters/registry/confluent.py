"""A schema registry that speaks the Confluent API: Confluent's own, Apicurio, Karapace, Redpanda."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock.core.errors import DefinitionError, SettingsError, Unavailable
from penstock.ports.registry import Reference, Registered, Schema, Verdict

TIMEOUT_S: Final = 5.0
REASON_CHARS_MAX: Final = 2_000
_MEDIA: Final = "application/vnd.schemaregistry.v1+json"

_MISSING: Final = 404
_CONFLICT: Final = 409
_NO_SCHEMA: Final = 422
_BUSY: Final = 429


_T = TypeVar("_T")


class _Reference(msgspec.Struct):
    name: str
    subject: str
    version: int


class _Schema(msgspec.Struct):
    schema: str
    schema_type: str | None = msgspec.field(default=None, name="schemaType")
    references: list[_Reference] | None = None

    def plain(self) -> Schema:
        """Return it as the port has it; Avro is what a schema is of which nothing is said."""
        references = (
            Reference(one.name, one.subject, one.version) for one in self.references or ()
        )
        return Schema(self.schema_type or "AVRO", self.schema, tuple(references))


class _Version(_Schema, kw_only=True):
    id: int
    version: int


class _Id(msgspec.Struct):
    id: int


class _Verdict(msgspec.Struct):
    is_compatible: bool
    messages: list[str] | None = None


class _Config(msgspec.Struct):
    compatibility_level: str = msgspec.field(default="", name="compatibilityLevel")
    compatibility: str = ""


class _Fault(msgspec.Struct):
    error_code: int
    message: str = ""


class ConfluentRegistry:
    """A registry at a URL, through a pool of connections.

    Args:
        url: Of the API, such as `http://127.0.0.1:8081` or `https://…/apis/ccompat/v7`.
        username: Of basic authentication; empty for none.
        password: Of basic authentication, or the bearer token if there is no user.
        ca: A file of certificates to trust instead of the system's.
        timeout_s: For each request.

    Raises:
        SettingsError: The certificates can't be read (E230).
    """

    def __init__(
        self, url: str, *, username: str = "", password: str = "", ca: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        headers = {"Accept": f"{_MEDIA}, application/json"}
        if password and not username:
            headers["Authorization"] = f"Bearer {password}"
        self._client = httpx.Client(
            headers=headers, auth=(username, password) if username else None, verify=_trusted(ca),
            timeout=timeout_s,
        )  # fmt: skip

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id."""
        said = self._ask("GET", f"/schemas/ids/{schema_id}", _Schema)
        return None if said is None else said.plain()

    def version(self, subject: str, version: int) -> Registered | None:
        """Return a version of a subject."""
        said = self._ask("GET", f"/subjects/{quote(subject, '')}/versions/{version}", _Version)
        return None if said is None else Registered(said.version, said.id, said.plain())

    def versions(self, subject: str) -> list[Registered]:
        """Return all versions of a subject, oldest first."""
        numbers = self._ask("GET", f"/subjects/{quote(subject, '')}/versions", list[int])
        found = [self.version(subject, number) for number in sorted(numbers or ())]
        return [one for one in found if one is not None]

    def find(self, subject: str, schema: Schema) -> Registered | None:
        """Return the version of a subject that is this schema."""
        said = self._ask("POST", f"/subjects/{quote(subject, '')}", _Version, _body(schema))
        return None if said is None else Registered(said.version, said.id, schema)

    def judge(self, subject: str, schema: Schema) -> Verdict:
        """Return whether a schema may be registered under a subject."""
        path = f"/compatibility/subjects/{quote(subject, '')}/versions?verbose=true"
        said = self._ask("POST", path, _Verdict, _body(schema))
        if said is None or said.is_compatible:
            return Verdict(fits=True)  # also if there is nothing yet that it would have to fit
        return Verdict(False, tuple(one[:REASON_CHARS_MAX] for one in said.messages or ()))

    def register(self, subject: str, schema: Schema) -> int:
        """Register a schema as the newest version of a subject."""
        said = self._ask("POST", f"/subjects/{quote(subject, '')}/versions", _Id, _body(schema))
        if said is None:
            raise self._no_registry("has no way to register a schema")
        return said.id

    def compatibility(self, subject: str) -> str:
        """Return a subject's own compatibility."""
        said = self._ask("GET", f"/config/{quote(subject, '')}", _Config) or _Config()
        # Servers take the one name, and answer the other.
        return (said.compatibility_level or said.compatibility).lower()

    def set_compatibility(self, subject: str, compatibility: str) -> None:
        """Set a subject's compatibility."""
        body = {"compatibility": compatibility.upper()}
        self._ask("PUT", f"/config/{quote(subject, '')}", _Config, body)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _ask(
        self, method: str, path: str, kind: type[_T], body: dict[str, Any] | None = None
    ) -> _T | None:
        """Return what the registry answers; None if it knows nothing of what the path names."""
        try:
            answer = self._client.request(
                method, self.url + path, content=None if body is None else json.dumps(body),
                headers={"Content-Type": _MEDIA},
            )  # fmt: skip
        except httpx.HTTPError as error:
            raise Unavailable("E490", f"the schema registry does not answer: {type(error).__name__}", where=self.url,
                              fix="start it, or correct `registry.url`; what is cached goes on meanwhile") from error  # fmt: skip
        except httpx.InvalidURL as error:
            raise self._no_registry("is no address") from error
        if answer.status_code == _MISSING:
            # A server that is no registry knows no path either, and says it otherwise.
            self._read(answer, _Fault)
            return None
        if answer.status_code in (401, 403):
            raise SettingsError("E230", f"the schema registry does not let us in (status {answer.status_code})", where=self.url,
                                fix="correct `registry.username` and `registry.password`, or what that user may do")  # fmt: skip
        if answer.status_code == _CONFLICT:
            raise DefinitionError("E195", f"the registry refuses the schema: {_message(answer)}", where=path,
                                  fix="keep what others go on sending or reading, or register it by hand")  # fmt: skip
        if answer.status_code == _NO_SCHEMA:
            raise DefinitionError("E199", f"the registry does not take this: {_message(answer)}", where=path,
                                  fix="see its message; another `registry.format` may be what it knows")  # fmt: skip
        if answer.status_code >= 500 or answer.status_code == _BUSY:
            raise Unavailable("E490", f"the schema registry failed with status {answer.status_code}: {_message(answer)}",
                              where=self.url, fix="see its log; asking again is safe")  # fmt: skip
        if not answer.is_success:
            raise self._no_registry(f"answered with status {answer.status_code}")
        return self._read(answer, kind)

    def _read(self, answer: httpx.Response, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._no_registry("answers what no schema registry does") from error

    def _no_registry(self, why: str) -> SettingsError:
        return SettingsError("E230", f"what `registry.url` names {why}", where=self.url,
                             fix="name the root of its Confluent API; Apicurio's ends in /apis/ccompat/v7")  # fmt: skip


def _body(schema: Schema) -> dict[str, Any]:
    body: dict[str, Any] = {"schema": schema.text, "schemaType": schema.kind}
    if schema.references:
        body["references"] = [reference._asdict() for reference in schema.references]
    return body


def _message(answer: httpx.Response) -> str:
    try:
        return msgspec.json.decode(answer.content, type=_Fault).message[:REASON_CHARS_MAX]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return answer.text[:REASON_CHARS_MAX]


def _trusted(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except OSError as error:
        raise SettingsError("E230", f"the certificates of the schema registry can't be read: {error.strerror}",
                            where=str(ca), fix="correct `registry.ca`") from error  # fmt: skip
