"""Our OpenAPI document is true: schemathesis asks every operation, well and wrongly, and reads what comes back.

What the document allows may still be refused, and a collector takes a batch for its good events, so
a refusal is no finding. A finding is: a 5xx, a status or a content type that the document does not
name, a body that is not what it says.
"""

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import BaseSchema, Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

ADMIN = ("/v1/admin", "/v1/profiles", "/v1/decide", "/v1/render")
FOUND_BY = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def document(shop_url: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{shop_url}/schema/openapi.json")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def ask_all(
    document: BaseSchema, session: requests.Session, mode: GenerationMode, examples: int
) -> int:
    """Ask every operation so often; return how many there are."""
    operations = [found.ok() for found in document.get_all_operations()]
    for operation in operations:
        # Of a path alone nothing can be wrong: any text is one.
        if mode is GenerationMode.POSITIVE or operation.body or operation.query:
            ask(operation, session, mode, examples)
    return len(operations)


def ask(
    operation: APIOperation, session: requests.Session, mode: GenerationMode, examples: int
) -> None:
    key = "demo-admin-key" if operation.path.startswith(ADMIN) else "demo-server-key"
    headers = {"Authorization": f"Bearer {key}"}

    @settings(
        max_examples=examples, phases=[Phase.generate], derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def asked(case: Case) -> None:
        answer = case.call(headers=headers, session=session, timeout=20)
        case.validate_response(answer, checks=FOUND_BY)

    asked()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_every_operation_answers_as_documented(document, session, mode):
    assert ask_all(document, session, mode, 4) > 60


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_every_operation_answers_as_documented_often(document, session, mode):
    assert ask_all(document, session, mode, 12) > 60
