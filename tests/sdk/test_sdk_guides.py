"""The guides' lines for servers, as they are written but for host and key: what they send arrives."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk_shop import KilledShop

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
OLDER = ROOT / ".cache" / "sdk-older"
HOST = "https://events.shop.example"

pytestmark = pytest.mark.service

VIEWED = '"Product Viewed"'
THEN = {
    "@segment/analytics-node": f"""
        analytics.track({{ userId: "USER", event: {VIEWED}, properties: {{ product_id: "sku-1" }} }});
        await analytics.closeAndFlush();
    """,
    "@rudderstack/rudder-sdk-node": f"""
        analytics.track({{ userId: "USER", event: {VIEWED}, properties: {{ product_id: "sku-1" }} }});
        await analytics.flush();
    """,
    "@jitsu/js": f"""
        await analytics.identify("USER");
        await analytics.track({VIEWED}, {{ product_id: "sku-1" }});
    """,
    "segment.analytics": f'analytics.track("USER", {VIEWED}, {{"product_id": "sku-1"}}); analytics.flush()',
    "rudderstack.analytics": f'analytics.track("USER", {VIEWED}, {{"product_id": "sku-1"}}); analytics.flush()',
}
"""What a site adds to the lines of a guide, by the module that they import."""


def block(module: str) -> tuple[str, str]:
    """Return the language and text of the one block for servers that imports a module."""
    found = [
        (language, text)
        for page in ("segment.md", "rudderstack-and-jitsu.md")
        for language, text in re.findall(
            r"^```(js|py)\n(.*?)^```$", (GUIDES / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
        if re.search(rf'(from "|import ){re.escape(module)}\b', text)
    ]
    (one,) = found
    return one


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledShop]:
    """A shop in a process of its own, for all of them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shop = KilledShop(tmp_path_factory.mktemp("shop"), port)
    shop.start()
    yield shop
    shop.stop()


@pytest.mark.parametrize("module", THEN)
def test_what_the_lines_of_a_guide_send_is_in_the_profile(shop, node_sdk, program, module):
    user = f"u-{list(THEN).index(module)}"
    language, text = block(module)
    assert HOST in text
    key = "wk-server:secret" if "site:" in text else "wk-server"
    text = re.sub(r"wk_backend_…|site:9f2c…", key, text).replace(HOST, shop.url)
    assert key in text
    command = (
        [program("node"), "--input-type=module"] if language == "js" else [sys.executable, "-"]
    )
    older = {"PYTHONPATH": str(OLDER)} if module.startswith("rudderstack") else {}
    done = subprocess.run(
        command, input=text + THEN[module].replace("USER", user), cwd=node_sdk, env={**os.environ, **older}, check=False,
        capture_output=True, text=True, encoding="utf-8", timeout=40,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    assert 1 == shop.views(user)
