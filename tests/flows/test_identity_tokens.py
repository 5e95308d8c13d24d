"""Signed identity tokens at the edge: what an event under a public key becomes with one, and without."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests_serving import Shop

from penstock.core.errors import SettingsError
from penstock.core.event import SEGMENT, decode_batch
from penstock.core.record import Record, decode_record
from penstock.flows.collect import source_of

KEY, KID = "s" * 32, "2026-11"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "identity-tokens.md"
Play = Callable[..., Any]


def block(language: str) -> str:
    """The first block of a language in the guide: what users copy is what is tested."""
    return GUIDE.read_text().split(f"```{language}\n")[1].split("```")[0]


def token(user: str = "u1", email: str = "", key: str = KEY, kid: str = KID) -> str:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    return names["identity_token"](user, key, kid, email)


def event(shown: Any, **more: Any) -> dict[str, Any]:
    context = {
        "consent": {"categoryPreferences": {"personalisation": True}},
        "identityToken": shown,
    }
    return {"type": "track", "event": "Product Viewed", "userId": "u1", "anonymousId": "a1",
            "messageId": f"m-{time.monotonic_ns()}", "properties": {"product_id": "p1"}, "context": context, **more}  # fmt: skip


def told(*events: dict[str, Any], keys: dict[str, str] | None = None) -> Callable[[Shop], Any]:
    """Send events under a public key; return the primaries and what the tokens were counted as."""

    async def story(shop: Shop) -> tuple[list[Record], dict[str, float]]:
        # The guide's signer asks the machine what time it is.
        shop.clock.advance(ms=max(0, int(time.time() * 1000) - shop.clock.now_ms()))
        source = source_of("site", "browser", 0, {}, {KID: KEY} if keys is None else keys)
        body = json.dumps({"batch": list(events)}).encode()
        await shop.node.collector.take(source, decode_batch(body, SEGMENT))
        await shop.node.engine.settled()
        log = shop.node.stores.log
        records = [decode_record(one.value) for one in log.read(0, 0, 1_000)]
        assert not any(b"eyJ" in one.value for one in log.read(0, 0, 1_000)), (
            "a token is kept nowhere"
        )
        return [one for one in records if one.kind == 1]

    return story


def test_a_vouched_event_is_as_good_as_a_servers(play: Play) -> None:
    (record,) = play(told(event(token())))
    assert ("user_id", True, [True]) == (
        record.id_type, record.verified, [edge.verified for edge in record.edges],
    )  # fmt: skip


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(event(token("u2")), id="another-user"),
        pytest.param(event(token(key="x" * 32)), id="forged"),
        pytest.param(event("junk"), id="junk"),
        pytest.param(event(token(), type="identify", traits={"email": "victim@example.com"}), id="email-not-in-it"),
        pytest.param(event(token(email="ann@example.com"), type="identify",
                           traits={"email": "victim@example.com"}), id="another-email"),
        pytest.param(event(token(), type="alias", previousId="u9"), id="alias"),
        pytest.param(event(token(), type="group", groupId="g1"), id="group"),
    ],
)  # fmt: skip
def test_what_is_not_vouched_for_is_a_claim_and_not_lost(play: Play, one: dict[str, Any]) -> None:
    (record,) = play(told(one))
    assert ("anonymous_id", False) == (record.id_type, record.verified)
    assert not any(edge.verified for edge in record.edges)


def test_an_address_in_the_token_is_a_verified_address(play: Play) -> None:
    shown = token(email="ann@example.com")
    (record,) = play(told(event(shown, type="identify", traits={"email": " Ann@Example.com"})))
    assert ("user_id", True) == (record.id_type, record.verified)
    assert {"email", "anonymous_id"} == {edge.b_type for edge in record.edges}


def test_external_ids_are_not_vouched_for(play: Play) -> None:
    one = event(token())
    one["context"]["externalIds"] = [{"id": "77", "type": "crm_id", "collection": "users"}]
    (record,) = play(told(one))
    assert not record.verified


def test_a_source_without_keys_takes_no_notice(play: Play) -> None:
    (record,) = play(told(event(token()), keys={}))
    assert ("anonymous_id", False) == (record.id_type, record.verified)


def test_the_guides_node_signer_makes_the_same_token(play: Play, program: Callable[[str], str]) -> None:  # fmt: skip
    script = f"{block('js')}\nconsole.log(identityToken('u1', {KEY!r}, {KID!r}, ''));"
    made = subprocess.run([program("node"), "-e", script], capture_output=True, text=True, check=True, timeout=30)  # fmt: skip
    (record,) = play(told(event(made.stdout.strip())))
    assert ("user_id", True) == (record.id_type, record.verified)


def test_short_keys_are_refused() -> None:
    with pytest.raises(SettingsError, match="E228"):
        source_of("site", "browser", 0, {}, {"k": "short"})
