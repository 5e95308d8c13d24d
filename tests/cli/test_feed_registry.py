"""What other systems are told by schemas of a real registry: published, framed, and read by them."""

from __future__ import annotations

import io
import json
import signal
import time
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest

from penstock.adapters.registry.confluent import ConfluentRegistry
from penstock.core.wire import unframe
from tests.adapters.kafka.read_topic import read_topic
from tests.cli.test_feed_kafka import decide
from tests.cli.test_kafka_commands import run
from tests.cli.test_up import Up, view
from tests.cli.test_up_kafka import project_on
from tools.services.kafka import Cluster
from tools.services.service import Running

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


@pytest.mark.parametrize("format_name", ["json-schema", "avro"])
def test_values_are_read_by_the_schemas_that_were_published(
    kafka: Cluster, registry_server: Running, tmp_path: Path, format_name: str
) -> None:
    folder = project_on(kafka, tmp_path / "shop", f"""
[feed]
decisions = true
profiles = true
format = "{format_name}"
every_ms = 50

[registry]
url = "{registry_server.address}"
namespace = "com.example"
""")  # fmt: skip
    prefix = f"{tmp_path.name}."
    up = Up(folder)
    try:
        up.send(view(1), view(2))
        decided = decide(up, "u1", "s1")["decision_id"]
        # Nothing is told before the schemas are there, and nothing is left out.
        published = json.loads(run("schemas", "publish", "--project", folder, "--json").stdout)
        ids = {one["subject"]: one["id"] for one in published["registry"]}
        assert {f"{prefix}decisions-value", f"{prefix}profiles-value"} <= {*ids}
        registry = ConfluentRegistry(registry_server.address)
        read: dict[str, list[Any]] = {}
        for name in ("decisions", "profiles"):
            raw = wait_for(kafka, f"{prefix}{name}")
            framed = [unframe(value) for value in raw]
            assert {ids[f"{prefix}{name}-value"]} == {one.schema_id for one in framed}
            schema = registry.schema(framed[0].schema_id)
            assert schema is not None
            read[name] = [decoded(format_name, schema.text, one.payload) for one in framed]
        registry.close()
        assert [decided] == [one["decision_id"] for one in read["decisions"]]
        views = read["profiles"][-1]["features"]["views_7d"]
        assert 2 == (json.loads(views) if format_name == "avro" else views)
        again = json.loads(run("schemas", "publish", "--project", folder, "--json").stdout)
        assert {"unchanged"} == {one["what"] for one in again["registry"]}
    finally:
        assert 0 == up.end(signal.SIGTERM)


def wait_for(kafka: Cluster, topic: str) -> list[bytes]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := [value for one in read_topic(kafka.client, topic) if (value := one.value())]:
            return found
    pytest.fail(f"nothing was told on {topic}")


def decoded(format_name: str, text: str, payload: bytes) -> Any:
    if format_name == "avro":
        return fastavro.schemaless_reader(
            io.BytesIO(payload), fastavro.parse_schema(json.loads(text)), None
        )
    value = json.loads(payload)
    jsonschema.validate(value, json.loads(text))
    return value
