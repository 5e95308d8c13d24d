"""What a caller gets wrong is told by name, and nothing is decided or kept meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from tests_serving import READ, Shop, identify, view

WRONG = ["on", "y", "t", "", "maybe", " true", "2", "off"]


@pytest.mark.parametrize("path", ["/v1/decide/spring", "/v1/render/spring"])
@pytest.mark.parametrize("word", WRONG)
def test_a_preview_that_is_neither_yes_nor_no_is_refused_and_decides_nothing(play, path, word):
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        asked = {"user_id": "u1", "preview": word}
        answer = await shop.http.get(path, params=asked, headers=READ)
        return answer.status_code, answer.json(), shop.node.stores.decisions.outbox(10)

    status, error, decided = play(story)

    assert (status, error["code"], error["path"]) == (400, "E397", "preview")
    assert all(one in error["fix"] for one in ("true, 1, yes", "false, 0, no"))
    assert decided == []


@pytest.mark.parametrize("path", ["/v1/decide/spring", "/v1/render/spring"])
@pytest.mark.parametrize(
    ("word", "kept"),
    [("true", 0), ("YES", 0), ("1", 0), ("False", 1), ("0", 1), ("no", 1), (None, 1)],
)
def test_a_preview_may_be_said_in_any_case(play, path, word, kept):
    async def story(shop: Shop) -> Any:
        await shop.send(identify(), view("p1"))
        asked = {"user_id": "u1"} | ({} if word is None else {"preview": word})
        answer = await shop.http.get(path, params=asked, headers=READ)
        return answer.status_code, len(shop.node.stores.decisions.outbox(10))

    assert play(story) == (200, kept)


@pytest.mark.parametrize(
    ("path", "shown", "code", "other"),
    [
        ("/v1/profiles/user_id:u1", "Bearer sesame-9", "E391", "is no read key"),
        ("/v1/profiles/user_id:u1", "Basic sesame-9", "E391", "shows no read key"),
        ("/v1/profiles/user_id:u1", "", "E391", "shows no read key"),
        ("/v1/admin/dead-letters", "Bearer sesame-9", "E379", "is not the admin key"),
        ("/v1/admin/dead-letters", "Bearer", "E379", "shows no admin key"),
    ],
)
def test_a_key_that_is_not_ours_is_not_told_as_none(play, path, shown, code, other):
    async def story(shop: Shop) -> Any:
        answer = await shop.http.get(path, headers={"Authorization": shown})
        return answer.status_code, answer.json()["code"], answer.text

    status, told, text = play(story)

    assert (status, told) == (401, code)
    assert other in text
    assert "sesame" not in text


async def post(shop: Shop, path: str, body: bytes) -> Any:
    headers = {**READ, "Content-Type": "application/json"}
    if path.startswith("/v1/admin"):
        headers["Authorization"] = "Bearer admin-key"
    answer = await shop.http.post(path, content=body, headers=headers)
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("path", "body", "place", "fix"),
    [
        ("/v1/profiles/lookup", b'{"emial": "ann@example.com"}', "emial", "did you mean `email`?"),
        ("/v1/profiles", b'{"persons": [], "people": []}', "persons", "use only people"),
        ("/v1/decide/spring", b'{"recipients": [], "sent": "a"}', "sent", "did you mean `send`?"),
        ("/v1/admin/explain", b'{"campain": "spring"}', "campain", "did you mean `campaign`?"),
    ],
)
def test_a_field_that_a_body_may_not_have_is_named(play, path, body, place, fix):
    async def story(shop: Shop) -> Any:
        return await post(shop, path, body)

    status, error = play(story)

    assert (status, error["code"], error["path"]) == (400, "E397", place)
    assert f"`{place}`" in error["message"]
    assert fix in error["fix"]
    assert "ann@" not in str(error)


def test_a_field_named_by_a_value_is_not_repeated(play):
    async def story(shop: Shop) -> Any:
        return await post(shop, "/v1/profiles/lookup", b'{"ann@example.com": 1}')

    status, error = play(story)

    assert (status, error["code"]) == (400, "E397")
    assert "ann" not in str(error)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/profiles", b'{"people":[{"user_id":"u\xff"}]}'),
        ("/v1/profiles/lookup", b'{"user_id":"u\xff"}'),
        ("/v1/profiles/lookup", b'{"\xff":"u1"}'),
        ("/v1/decide/spring", b'{"recipients":[{"user_id":"\xc3("}]}'),
        ("/v1/admin/explain", b'{"campaign":"\xff"}'),
    ],
)
def test_a_body_that_is_no_utf8_is_its_senders_fault(play, path, body):
    async def story(shop: Shop) -> Any:
        return await post(shop, path, body)

    status, error = play(story)

    assert (status, error["code"]) == (400, "E397")
