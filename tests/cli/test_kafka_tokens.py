"""OAUTHBEARER: a real broker takes the tokens of an identity provider, and renews and refuses them as it should."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from confluent_kafka.admin import AclOperation
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from penstock.adapters.clock import SystemClock
from tests.cli.test_doctor_servers import allow_as_told, examined, only, told
from tests.cli.test_kafka_commands import change, refused, run
from tests.cli.test_up import Up, view
from tests.cli.test_up_kafka import project_on
from tests.conftest import running
from tools.services.kafka import SERVICE, Cluster, Tokens

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(300)]

AUDIENCE, SCOPE, SECRET = "kafka", "events", "of-the-client"
LIFE_S = 5
"""A token's: short enough that several run out while a test goes on."""


class Provider:
    """An identity provider on the loopback: it gives tokens to clients that know their secret, and tells its keys."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "of-the-tests", "alg": "RS256", "use": "sig"})
        self.given = 0
        self.scopes: set[str] = set()
        provider = self

        class Routes(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, KeySet([provider.key]).as_dict(private=False))

            def do_POST(self) -> None:
                body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                client, _, secret = base64.b64decode(self.headers["Authorization"].split()[1]).decode().partition(":")  # fmt: skip
                if secret != SECRET or body["grant_type"] != ["client_credentials"]:
                    self.answer(401, {"error": "invalid_client"})
                    return
                provider.scopes |= set(body["scope"])
                self.answer(200, {"access_token": provider.token(client), "token_type": "Bearer", "expires_in": LIFE_S})  # fmt: skip

            def answer(self, status: int, value: Any) -> None:
                raw = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Routes)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.tokens = Tokens(f"{self.url}/keys", self.url, AUDIENCE)
        self._serving = threading.Thread(target=self.server.serve_forever)
        self._serving.start()

    def token(self, client: str) -> str:
        self.given += 1
        now = SystemClock().now_ms() // 1000
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": client,
            "scope": SCOPE,
            "iat": now,
            "exp": now + LIFE_S,
        }
        return jwt.encode({"alg": "RS256", "kid": "of-the-tests"}, claims, self.key)

    def close(self) -> None:
        self.server.shutdown()
        self._serving.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def cluster(provider: Provider) -> Iterator[Cluster]:
    yield from running(SERVICE, secured=True, tokens=provider.tokens)


@pytest.fixture
def folder(
    cluster: Cluster, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("CLIENT_SECRET", SECRET)
    return project_on(
        cluster, tmp_path / "shop",
        f'tls = true\nca = "{cluster.ca}"\nsasl = "OAUTHBEARER"\nusername = "{tmp_path.name}"\n'
        f'password = "env:CLIENT_SECRET"\ntoken_url = "{provider.url}/token"\ntoken_scope = "{SCOPE}"\nopen_timeout_ms = 15000',
    )  # fmt: skip


def test_who_has_a_token_may_do_what_acls_allow_and_goes_on_when_tokens_run_out(
    folder: Path, cluster: Cluster, provider: Provider
) -> None:
    user = folder.parent.name
    lacking = examined(folder, "kafka permissions:")
    assert {("FAIL", "E282", 3)} == set(map(told, lacking)), (
        "the broker knows it, and allows nothing yet"
    )
    allow_as_told(cluster, user, [one["fix"] for one in lacking])
    cluster.allow(user, AclOperation.CREATE, topics=f"{user}.")
    applied = run("apply", "--project", folder)
    assert 0 == applied.exit_code, applied.output
    assert "all that is needed" in only(folder, "kafka permissions")["what"]
    assert {SCOPE} == provider.scopes
    up = Up(folder)
    try:
        before, number, until = provider.given, 0, time.monotonic() + 30 * LIFE_S
        while provider.given < before + 3:
            number += 1
            assert 1 == up.send(view(number))["accepted"]
            assert time.monotonic() < until, "no token was renewed"
        # Acknowledged is not yet folded.
        while (seen := up.profile("u1")["features"]["views_7d"]) < number:
            assert time.monotonic() < until, "what was sent is never folded"
        assert number == seen
    finally:
        assert 0 == up.end(signal.SIGTERM)


def test_a_client_without_its_secret_is_told_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "of-another")
    found = only(folder, "kafka")
    assert ("FAIL", "E282", 3) == told(found), found
    assert "of-another" not in json.dumps(found)
    assert "E282" == refused(run("plan", "--project", folder))


def test_a_provider_that_is_away_is_told_so(folder: Path, provider: Provider) -> None:
    change(folder, f"{provider.url}/token", "http://127.0.0.1:1/token")
    found = only(folder, "kafka")
    assert ("FAIL", "E282", 3) == told(found), found
    assert "whether `token_url` answers" in found["fix"]
