"""What every test may ask for: golden files, real data, programs, and no network where none belongs."""

import difflib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, sync_playwright

from tools.services.kafka import SERVICE as KAFKA
from tools.services.kafka import Cluster
from tools.services.redis import SERVICE as REDIS
from tools.services.redis import Servers, give_all_slots
from tools.services.registry import SERVICE as REGISTRY
from tools.services.service import Missing, Running, new_folder

TESTS = Path(__file__).parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
DATA = ROOT.parent / "shared" / "data"
PURE_FOLDERS = tuple(TESTS / layer for layer in ("core", "dsl", "flows", "ports"))

# The machines that run this are shared and slow at times: a deadline would measure the neighbours.
_ALWAYS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "print_blob": True,
}
settings.register_profile("fast", derandomize=True, max_examples=50, database=None, **_ALWAYS)
settings.register_profile("deep", max_examples=2_000, **_ALWAYS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the tests see into tests/golden instead of comparing; review it as a diff",
    )


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutine tests on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Compare a value with a file in tests/golden: `golden("leaf-v1.bin", raw)`.

    Text and bytes are compared as they are, anything else as sorted, indented JSON. A stored format
    or an answer changes only by `pytest --update-golden`, and the change is reviewed as a diff.
    """

    def compare(name: str, actual: object) -> None:
        path = GOLDEN / name
        raw = _golden_bytes(actual)
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
            return
        if not path.exists():
            pytest.fail(
                f"tests/golden/{name} does not exist: write it with `pytest --update-golden`"
            )
        expected = path.read_bytes()
        if expected != raw:
            pytest.fail(f"tests/golden/{name} differs:\n{_difference(expected, raw)}")

    return compare


def _golden_bytes(actual: object) -> bytes:
    if isinstance(actual, bytes):
        return actual
    if isinstance(actual, str):
        return actual.encode()
    return (json.dumps(actual, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _difference(expected: bytes, actual: bytes) -> str:
    try:
        before, after = expected.decode().splitlines(), actual.decode().splitlines()
    except UnicodeDecodeError:
        before, after = [expected.hex(" ", 4)], [actual.hex(" ", 4)]
    return "\n".join(
        list(difflib.unified_diff(before, after, "golden", "now", lineterm="", n=2))[:60]
    )


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """The path of the Online Retail data (541,909 real order lines), if it is beside the clone."""
    return _data("online_retail.parquet")


@pytest.fixture(scope="session")
def golden_liquid() -> Path:
    """The path of the Golden Liquid cases, if they are beside the clone."""
    return _data("../conformance/golden_liquid.json")


def _data(name: str) -> Path:
    path = (DATA / name).resolve()
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared beside this clone")
    return path


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return the path of a program, such as node: skip the test where it is missing, fail in CI."""

    def find(name: str, *, fix: str = "") -> str:
        path = shutil.which(name)
        if path is None:
            missing(f"the program `{name}` is not installed", fix=fix)
        assert path is not None
        return path

    return find


@pytest.fixture(scope="session")
def node_sdk(program: Callable[[str], str]) -> Path:
    """The folder tests/sdk with the Node SDKs installed from their lock; `node` runs there."""
    program("node")
    folder = TESTS / "sdk"
    if not (folder / "node_modules" / "@segment" / "analytics-node").is_dir():
        missing("the Node SDKs are not installed", fix="make test-sdk")
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 API on this machine."""
    from moto.server import ThreadedMotoServer  # a second's work, for few tests

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """A real Kafka broker on this machine, for all tests of this process: they use topics of their own."""
    yield from running(KAFKA)


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator[Cluster]:
    """A real Kafka broker that asks for TLS and a SCRAM user, and allows what its ACLs say."""
    yield from running(KAFKA, secured=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Servers]:
    """A real Redis server on this machine, for all tests of this process: they use tenants of their own."""
    yield from running(REDIS)


StartRedis = Callable[..., Servers]


@pytest.fixture
def start_redis() -> Iterator[StartRedis]:
    """Start Redis servers of a test's own, which it may stop, empty, kill and change."""
    with ExitStack() as started:
        yield lambda **options: started.enter_context(contextmanager(running)(REDIS, **options))


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Servers]:
    """A real Redis cluster of one server: it refuses commands whose keys are in several slots."""
    for servers in running(REDIS, settings={"cluster-enabled": "yes"}):
        with servers.client() as client:
            give_all_slots(client)
        yield servers


@pytest.fixture(scope="session")
def registry_server() -> Iterator[Running]:
    """A real schema registry on this machine, for all tests of this process: they use subjects of their own."""
    yield from running(REGISTRY)


def running(service: Any, **options: Any) -> Iterator[Any]:
    """Start a service for a fixture, and remove it in the end; skip or fail where it can't be had."""
    lacks = service.missing()
    if lacks:
        missing(lacks)
    try:
        started = service.start(new_folder(service.name), **options)
    except Missing as error:
        missing(str(error), fix="make services")
        return
    try:
        yield started
    finally:
        started.remove()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, with credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return s3_server


CHROMIUM_FLAGS = (
    "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--no-first-run",
)  # fmt: skip
"""A browser under test talks to nobody but the test."""


@pytest.fixture(scope="module")
def chromium(program: Callable[[str], str]) -> Iterator[Browser]:
    """A headless Chromium, Debian's, for one module: Playwright's loop must not outlive it."""
    path = program("chromium", fix="apt-get install chromium")
    flags = [*CHROMIUM_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


def missing(what: str, *, fix: str = "") -> None:
    """Skip on a laptop, fail in CI: what a machine lacks must never hide what is broken."""
    reason = f"{what}; fix: {fix}" if fix else what
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{reason} (in CI nothing may be missing)")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _no_network_where_none_belongs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make sockets raise in the tests of the pure layers."""
    if not any(request.path.is_relative_to(folder) for folder in PURE_FOLDERS):
        return

    def refuse(*_: object) -> None:
        raise AssertionError("the pure layers do no network I/O")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
