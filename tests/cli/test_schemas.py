"""`penstock schemas` at a real registry: checked, published, published again, and refused with the field."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner, Result

from penstock.adapters.registry.confluent import ConfluentRegistry
from penstock.cli.main import main
from penstock.core.errors import SettingsError, Unavailable
from tools.services.service import Running, free_ports


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def result_of(*args: object, code: int = 0) -> Any:
    result = run(*args, "--json")
    assert code == result.exit_code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    assert run("init", folder).exit_code == 0
    return folder


def with_registry(folder: Path, url: str, namespace: str, **settings: str) -> None:
    toml = folder / "penstock.toml"
    lines = [f'{name} = "{value}"' for name, value in {"url": url, "namespace": namespace, **settings}.items()]  # fmt: skip
    toml.write_text(toml.read_text().partition("\n[registry]")[0] + "\n[registry]\n" + "\n".join(lines) + "\n")  # fmt: skip


def declare(folder: Path, fields: str) -> None:
    events = folder / "events.py"
    kept = events.read_text().partition("\n# rated\n")[0]
    events.write_text(f'{kept}\n# rated\nfrom penstock.dsl.events import event, integer, string\n\nrated = event("Rated", {fields})\n')  # fmt: skip


@pytest.mark.parametrize("format_name", ["json-schema", "avro"])
def test_events_are_published_changed_and_refused(
    folder: Path, registry_server: Running, format_name: str
) -> None:
    namespace = f"com.example.{format_name.replace('-', '_')}"
    with_registry(folder, registry_server.address, namespace, format=format_name)
    declare(folder, "stars=integer(required=True)")

    would = result_of("schemas", "publish", "--dry-run", "--project", folder)
    first = result_of("schemas", "publish", "--project", folder)
    again = result_of("schemas", "publish", "--project", folder)

    subject = f"{namespace}.Rated"
    assert {"new"} == {one["what"] for one in would["registry"]}
    assert would["published"] is False
    assert {"new"} == {one["what"] for one in first["registry"]}
    assert {"unchanged"} == {one["what"] for one in again["registry"]}
    assert [one["id"] for one in first["registry"]] == [one["id"] for one in again["registry"]]
    assert subject in {one["subject"] for one in first["registry"]}

    declare(folder, "stars=integer(required=True), text=string()")
    checked = run("schemas", "check", "--project", folder)
    assert 0 == checked.exit_code, checked.output
    assert f"~ {subject}: changed, fits version 1 (backward)" in checked.output
    assert 0 == run("schemas", "publish", "--project", folder).exit_code

    declare(folder, "stars=integer(required=True), text=string(required=True)")
    refused = run("schemas", "publish", "--project", folder)
    assert 1 == refused.exit_code
    assert f"! {subject}: changed, does not fit version 2 (backward)" in refused.output
    assert (
        "$.properties.text is required, and events of old senders may be without it"
        in refused.output
    )
    assert "Nothing was registered." in refused.output
    assert 1 == run("schemas", "check", "--project", folder).exit_code
    assert 0 == run("schemas", "check", "--local", "--project", folder).exit_code
    registry = ConfluentRegistry(registry_server.address)
    assert [1, 2] == [one.version for one in registry.versions(subject)]
    registry.close()


def test_the_registry_has_the_last_word(folder: Path, registry_server: Running) -> None:
    """What somebody else registered is no declaration to compare with: the registry compares."""
    with_registry(folder, registry_server.address, "com.example.theirs", format="avro")
    theirs = {"type": "record", "name": "Rated", "namespace": "com.example.theirs",
              "fields": [{"name": "stars", "type": "string"}]}  # fmt: skip
    httpx.put(f"{registry_server.address}/config/com.example.theirs.Rated", json={"compatibility": "BACKWARD"})  # fmt: skip
    httpx.post(f"{registry_server.address}/subjects/com.example.theirs.Rated/versions",
               json={"schema": json.dumps(theirs), "schemaType": "AVRO"}).raise_for_status()  # fmt: skip
    declare(folder, "stars=integer(required=True)")

    result = result_of("schemas", "check", "--project", folder, code=1)
    rated = next(one for one in result["registry"] if one["event"] == "Rated")
    assert (False, []) == (rated["fits"], rated["breaks"])
    refused = run("schemas", "publish", "--project", folder)
    assert "the registry says" in refused.output
    assert "Nothing was registered." in refused.output


def test_avro_is_exported(folder: Path, tmp_path: Path) -> None:
    result = result_of("schemas", "export", tmp_path / "out", "--format", "avro", "--project", folder)  # fmt: skip
    assert "product-viewed.avsc" in result["written"]
    schema = json.loads((tmp_path / "out" / "product-viewed.avsc").read_text())
    assert ("record", "ProductViewed") == (schema["type"], schema["name"])


def test_a_project_without_a_registry_is_told_so(folder: Path) -> None:
    assert "E232" in run("schemas", "publish", "--project", folder).output


def test_subjects_by_topic_need_a_topic(folder: Path, registry_server: Running) -> None:
    with_registry(folder, registry_server.address, "com.example.topics", subjects="topic_record")
    assert "E231" in run("schemas", "check", "--project", folder).output
    with_registry(folder, registry_server.address, "com.example.topics", subjects="topic_record", topic="shop")  # fmt: skip
    result = result_of("schemas", "publish", "--dry-run", "--project", folder)
    assert "shop-com.example.topics.ProductViewed" in {one["subject"] for one in result["registry"]}


def test_a_registry_that_is_away_is_told_of(folder: Path) -> None:
    with_registry(folder, f"http://127.0.0.1:{free_ports(1)[0]}", "com.example")
    result = run("schemas", "publish", "--project", folder)
    assert (69, True) == (result.exit_code, "E490" in result.output)


def test_a_server_that_is_no_registry_is_told_from_one(registry_server: Running) -> None:
    for url in (registry_server.address.replace("ccompat", "nothing"), "http://"):
        registry = ConfluentRegistry(url)
        with pytest.raises((SettingsError, Unavailable)) as told:
            registry.versions("a")
        assert "E230" in str(told.value) or url == "http://"
        registry.close()


@contextmanager
def asking_for_a_user(registry: Running) -> Iterator[str]:
    """Stand in front of a registry, and let nobody through but one user: registries themselves often do not ask."""
    expected = "Basic " + base64.b64encode(b"ann:of-ann").decode()
    behind = urlsplit(registry.address)

    class Gate(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != expected:
                self.send_error(401)
                return
            with closing(HTTPConnection(behind.netloc, timeout=10)) as connection:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{behind.path}"
        finally:
            server.shutdown()
            serving.join()


def test_a_registry_that_does_not_know_the_user_is_told_with_what_to_correct(
    folder: Path, registry_server: Running
) -> None:
    with asking_for_a_user(registry_server) as url:
        with_registry(folder, url, "com.gated", username="ann", password="of-another")
        refused = run("schemas", "check", "--project", folder)
        assert (3, True) == (refused.exit_code, "E230" in refused.output)
        assert "`registry.username` and `registry.password`" in refused.output
        assert "of-another" not in refused.output
        toml = folder / "penstock.toml"
        toml.write_text(toml.read_text().replace("of-another", "of-ann"))
        assert 0 == run("schemas", "check", "--project", folder).exit_code
