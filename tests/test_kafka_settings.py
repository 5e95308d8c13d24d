"""`[log.kafka]`: what it is refused for when it loads, and what clients are told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.main import main
from penstock.core.errors import SettingsError
from penstock.logs import connection_of, topics_of
from penstock.project import load_project
from penstock.settings import parse_settings

TOKENS = "https://identity.example/token"


def kafka(**values: Any) -> dict[str, Any]:
    return {"log": {"kind": "kafka", "kafka": values}}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"brokers": []}, "brokers"),
        ({"prefix": "the shop"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"retention": "soon"}, "retention"),
        ({"letters_retention": "90"}, "letters_retention"),
        ({"sasl": "SCRAM-SHA-512"}, "username"),
        ({"sasl": "SCRAM-SHA-512", "username": "shop"}, "password"),
        ({"sasl": "OAUTHBEARER", "username": "shop", "password": "s"}, "token_url"),
        ({"sasl": "PLAIN", "username": "shop", "password": "s"}, "sasl"),
        ({"certificate": "shop.pem"}, "certificate"),
    ],
)
def test_what_can_not_be_used_is_refused_by_its_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(kafka(**values))
    assert "E285" == caught.value.code
    assert f"`log.kafka.{name}`" in caught.value.what


def test_a_log_on_kafka_is_not_told_how_long_it_is_kept() -> None:
    with pytest.raises(SettingsError, match="E284"):
        parse_settings({"log": {"kind": "kafka", "keep": "90d", "forget": True}})


def test_settings_of_kafka_are_no_matter_where_the_log_is_elsewhere() -> None:
    assert "sqlite" == parse_settings({"log": {"kafka": {"brokers": []}}}).log.kind


def told(tmp_path: Path, lines: str) -> dict[str, Any]:
    """Return what clients of a project are told, given lines of `[log.kafka]`."""
    folder = tmp_path / "shop"
    assert 0 == CliRunner().invoke(main, ["init", str(folder)]).exit_code
    toml = folder / "penstock.toml"
    toml.write_text(f'{toml.read_text()}\n[log]\nkind = "kafka"\n\n[log.kafka]\n{lines}\n')
    return dict(connection_of(load_project(folder)).client)


def test_without_security_brokers_alone_are_told(tmp_path: Path) -> None:
    assert {
        "bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT",
    } == told(tmp_path, 'brokers = ["a:1", "b:2"]')  # fmt: skip


def test_scram_over_tls_names_the_certificate_beside_the_project(tmp_path: Path) -> None:
    assert {
        "bootstrap.servers": "127.0.0.1:9092", "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(tmp_path / "shop" / "ca.pem"), "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "shop", "sasl.password": "secret",
    } == told(
        tmp_path,
        'tls = true\nca = "ca.pem"\nsasl = "SCRAM-SHA-512"\nusername = "shop"\npassword = "secret"',
    )  # fmt: skip


def test_oauthbearer_gets_tokens_by_client_credentials(tmp_path: Path) -> None:
    assert {
        "bootstrap.servers": "127.0.0.1:9092", "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "shop", "sasl.oauthbearer.client.secret": "secret",
        "sasl.oauthbearer.token.endpoint.url": TOKENS, "sasl.oauthbearer.scope": "events",
    } == told(
        tmp_path,
        f'tls = true\nsasl = "OAUTHBEARER"\nusername = "shop"\npassword = "secret"\ntoken_url = "{TOKENS}"\n'
        'token_scope = "events"',
    )  # fmt: skip


def test_what_is_told_is_what_clients_take(tmp_path: Path) -> None:
    from confluent_kafka import Producer

    client = told(
        tmp_path, f'sasl = "OAUTHBEARER"\nusername = "shop"\npassword = "s"\ntoken_url = "{TOKENS}"'
    )
    Producer({**client, "bootstrap.servers": "127.0.0.1:1", "log_level": 0}).close()


def test_topics_are_declared_with_all_but_one_copy_in_sync(tmp_path: Path) -> None:
    told(tmp_path, 'prefix = "shop."\nretention = "2d"\nletters_retention = "30d"')
    log, letters = topics_of(load_project(tmp_path / "shop"))
    assert ("shop.log-1", 1, 3) == (log.name, log.partitions, log.replication)
    assert ("shop.dead-letters", 1, 3) == (letters.name, letters.partitions, letters.replication)
    assert "2" == log.settings["min.insync.replicas"] == letters.settings["min.insync.replicas"]
    assert str(2 * 86_400_000) == log.settings["retention.ms"]
    assert str(30 * 86_400_000) == letters.settings["retention.ms"]
    assert "LogAppendTime" == log.settings["message.timestamp.type"]
