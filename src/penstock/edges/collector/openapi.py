"""How the collector's requests and answers are documented: the schemas of its OpenAPI operations."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

_TEXT = Schema(type=OpenAPIType.STRING)
_OBJECT = Schema(type=OpenAPIType.OBJECT)
_NULLABLE_TEXT = Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL])

EVENT_FIELDS: dict[str, Schema | Reference] = {
    "type": Schema(
        type=OpenAPIType.STRING, enum=["identify", "track", "page", "screen", "group", "alias"]
    ),
    "event": Schema(type=OpenAPIType.STRING, description="The event's name, for `track`"),
    "messageId": Schema(type=OpenAPIType.STRING, description="The same id is counted once"),
    "userId": _NULLABLE_TEXT,
    "anonymousId": _NULLABLE_TEXT,
    "previousId": Schema(type=OpenAPIType.STRING, description="For `alias`"),
    "groupId": Schema(type=OpenAPIType.STRING, description="For `group`"),
    "name": Schema(type=OpenAPIType.STRING, description="For `page` and `screen`"),
    "properties": _OBJECT,
    "traits": _OBJECT,
    "context": _OBJECT,
    "integrations": _OBJECT,
    "timestamp": Schema(type=OpenAPIType.STRING, description="When it happened, ISO 8601"),
    "sentAt": Schema(
        type=OpenAPIType.STRING, description="When it was sent, by the client's clock"
    ),
    "writeKey": Schema(
        type=OpenAPIType.STRING, description="The source's key, where no header carries it"
    ),
}

SINGLE = Schema(type=OpenAPIType.OBJECT, properties=EVENT_FIELDS)
BATCH = Schema(
    type=OpenAPIType.OBJECT,
    required=["batch"],
    properties={
        "batch": Schema(type=OpenAPIType.ARRAY, items=SINGLE),
        "context": Schema(type=OpenAPIType.OBJECT, description="Merged into each event"),
        "integrations": _OBJECT,
        "sentAt": _TEXT,
        "writeKey": EVENT_FIELDS["writeKey"],
        "job": Schema(type=OpenAPIType.STRING, description="The import's job id, for `/v1/import`"),
    },
)


class Rejection(msgspec.Struct, frozen=True, rename="camel"):
    """One event that was not accepted; it is kept as a dead letter and can be replayed."""

    index: int
    message_id: str
    code: str
    what: str
    path: str


class Accepted(msgspec.Struct, frozen=True):
    """What became of a request's events."""

    success: bool
    accepted: int
    rejected: list[Rejection] = []
    discarded: int = 0
    """Of the accepted, those of which consent or the project's rules let nothing be kept."""
    discarded_by_reason: dict[str, int] = {}
    """Such as `consent_unknown`, or `undeclared_event`."""


@dataclass
class SingleOperation(Operation):
    """An operation whose body is one event."""

    def __post_init__(self) -> None:
        """Say what the body is: it is read by the collector itself, not by the framework."""
        self.request_body = _body(SINGLE)


@dataclass
class BatchOperation(Operation):
    """An operation whose body is a batch of events."""

    def __post_init__(self) -> None:
        """Say what the body is: it is read by the collector itself, not by the framework."""
        self.request_body = _body(BATCH)


@dataclass
class SourceConfigOperation(Operation):
    """An operation whose query names the write key, where no header carries it."""

    def __post_init__(self) -> None:
        """Say what the query may hold."""
        self.parameters = [
            Parameter(name="writeKey", param_in="query", required=False, schema=_TEXT)
        ]


@dataclass
class PixelOperation(Operation):
    """An operation whose query is one event, and whose answer is an image."""

    def __post_init__(self) -> None:
        """Say what the query may hold, and what comes back."""
        self.parameters = [
            Parameter(name=name, param_in="query", required=False, schema=schema)
            for name, schema in EVENT_FIELDS.items()
            if schema is not _OBJECT and name != "type"
        ]
        self.parameters.append(
            Parameter(
                name="properties", param_in="query", required=False, style="deepObject",
                description="Written with dots: `properties.price=5`. So are `traits` and `context`",
                schema=_OBJECT,
            )
        )  # fmt: skip
        image = {"image/gif": OpenAPIMediaType(schema=_TEXT)}
        self.responses = {
            status: OpenAPIResponse(description=what, content=image)
            for status, what in {
                "200": "The event is durable, in the log or as a dead letter",
                "400": "Nothing in it can be read or kept",
                "429": "Overloaded",
                "503": "Not durable",
            }.items()
        }


def _body(schema: Schema) -> RequestBody:
    return RequestBody(
        required=True,
        description="JSON, plain or compressed by gzip or deflate; Content-Type is ignored",
        content={"application/json": OpenAPIMediaType(schema=schema)},
    )
