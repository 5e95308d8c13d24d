"""The guide on topics of other producers, followed at a real broker: its settings, its record, what it promises."""

import json
import re
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from penstock.cli.main import main
from penstock.connect_settings import ConnectSettings
from penstock.core.foreign import FORMATS
from penstock.settings import load_settings
from tests.cli.test_up import Up
from tools.services.kafka import Cluster

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "events-on-kafka.md").read_text()
ATTEMPTS_MAX = 2_000

pytestmark = pytest.mark.timeout(300)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_guide_names_every_format_and_its_settings_load(tmp_path: Path) -> None:
    toml = tmp_path / "penstock.toml"
    toml.write_text("\n".join(blocks("toml")))
    connect = load_settings(toml).connect
    assert {"orders", "views"} == set(connect)
    assert isinstance(connect["views"], ConnectSettings)
    assert [] == [name for name in FORMATS if f"`{name}`" not in PAGE]


def test_the_record_of_the_guide_is_an_order_of_its_user(tmp_path: Path, kafka: Cluster) -> None:
    folder = tmp_path / "shop"
    assert 0 == CliRunner().invoke(main, ["init", str(folder)]).exit_code
    toml = folder / "penstock.toml"
    added = blocks("toml")[0].replace('"127.0.0.1:9092"', f'"{kafka.address}"')
    toml.write_text(toml.read_text() + "\n" + added)
    admin = AdminClient(kafka.client)
    admin.create_topics([NewTopic("shop.orders", 1, 1)])["shop.orders"].result(30)
    record = json.loads(blocks("json")[0])
    producer = Producer(kafka.client)
    cancelled = {**record, "status": "cancelled"}
    for value in (json.dumps(record), json.dumps(cancelled), "poison"):
        producer.produce("shop.orders", value)
    assert 0 == producer.flush(30)

    up = Up(folder)
    try:
        found = next(
            profile["features"]
            for profile in (up.profile("u1") for _ in range(ATTEMPTS_MAX))
            if profile["features"].get("spent")
        )
        listed = up.call(
            "/v1/admin/dead-letters", Authorization=f"Bearer {load_settings(toml).server.admin_key}"
        )
    finally:
        up.end(signal.SIGTERM)
    assert {"EUR": 1990} == found["spent"]
    assert ["E331"] == [one["reason"] for one in listed["letters"]]
