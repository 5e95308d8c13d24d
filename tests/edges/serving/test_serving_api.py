"""The serving API from the outside: profiles, decisions, renders, and the ways they degrade."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest
from tests_serving import GRANTED, READ, Shop, identify, opened, view

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.compose import make_links
from penstock.core.consent.suppression import may_send
from penstock.core.errors import Unavailable
from penstock.core.record import Kind, decode_record
from penstock.flows.load import load_rows
from penstock.project import Project, load_project

SHOE = {"id": "p1", "title": "Red shoe", "url": "https://shop.example/p1", "price": "19.99",
        "category": "shoes", "stock": "3"}  # fmt: skip
HAT = {**SHOE, "id": "p2", "title": "Blue hat", "url": "https://shop.example/p2", "stock": "0"}


async def stocked(shop: Shop, *rows: dict[str, str]) -> None:
    loaded = await load_rows(
        shop.node.collector, "items", rows or (SHOE, HAT), source=shop.node.sources["crm"], job="j", first=1
    )  # fmt: skip
    assert loaded.refused == []
    await shop.node.engine.settled()


# ------------------------------------------------------------------------------------------ profiles


def test_a_view_is_in_the_profile_by_every_identifier(play) -> None:
    async def story(shop: Shop) -> list[dict[str, Any]]:
        await shop.send(view("p0", None, "a1"), identify(), view("p1"))
        by_email = await shop.http.post(
            "/v1/profiles/lookup", json={"email": " Ann@Example.com"}, headers=READ
        )
        token = by_email.json()["email_token"]
        by_token = await shop.http.post(
            "/v1/profiles/lookup", json={"email_token": token}, headers=READ
        )
        return [
            await shop.read("/v1/profiles/user_id:u1"),
            await shop.read("/v1/profiles/anonymous_id:a1"),
            by_email.json(),
            by_token.json(),
        ]

    found = play(story)

    assert [sorted(one["features"]["viewed"]) for one in found] == [["p0", "p1"]] * 4
    assert [one["traits"]["first_name"] for one in found] == ["Ann"] * 4
    assert (found[0]["served"], found[0]["age_ms"], found[0]["found"]) == ("live", 0, True)


def test_as_of_ends_every_window_and_is_never_before_what_is_known(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        await shop.send(identify(), view("p1"))
        later = await shop.read("/v1/profiles/user_id:u1", as_of="2026-12-25T00:00:00Z")
        early = await shop.http.get(
            "/v1/profiles/user_id:u1", params={"as_of": "2020-01-01T00:00:00Z"}, headers=READ
        )
        return later["features"]["views_7d"], early

    views, early = play(story)

    assert views == 0
    assert (early.status_code, early.json()["code"]) == (400, "E390")


@pytest.mark.parametrize(("path", "code"), [
    ("/v1/profiles/email:ann@example.com", "E395"),
    ("/v1/profiles/nothing", "E394"),
    ("/v1/profiles/item_id:p1", "E393"),
    ("/v1/profiles/claimed_user_id:u1", "E393"),
    ("/v1/profiles/user_id:u1?as_of=yesterday", "E396"),
])  # fmt: skip
def test_a_wrong_question_says_what_where_and_how(play, path: str, code: str) -> None:
    async def story(shop: Shop) -> Any:
        return await shop.http.get(path, headers=READ)

    answer = play(story)

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert answer.json()["fix"]
    assert "ann@example.com" not in answer.text


@pytest.fixture
def braze(folder) -> Project:
    """The project with a type of identifier of its own."""
    toml = folder / "penstock.toml"
    toml.write_text(toml.read_text() + '[identity]\nlimits = { "esp.braze" = 3 }\n')
    return load_project(folder)


@pytest.mark.parametrize(
    ("path", "code", "meant"),
    [
        ("/v1/profiles/foo:1", "E393", ""),
        ("/v1/profiles/foo:1?as_of=2027-01-01T00:00:00Z", "E393", ""),
        ("/v1/profiles/foo:1?known_at=0", "E393", ""),
        ("/v1/profiles/userid:u1", "E393", "user_id"),
        ("/v1/profiles/userId:u1", "E393", "user_id"),
        ("/v1/profiles/anonymousId:a1", "E393", "anonymous_id"),
        ("/v1/profiles/esp.braz:b2", "E393", "esp.braze"),
        ("/v1/profiles/user_id:u1?asof=2026-12-25T00:00:00Z", "E397", "as_of"),
        ("/v1/decide/spring?userid=u1", "E397", "user_id"),
        ("/v1/decide/spring?user_id=u1&sned=s1", "E397", "send"),
        ("/v1/decide/spring?email=ann@example.com", "E395", ""),
        ("/v1/decide/spring?user_id=u1&ann@example.com=1", "E397", ""),
        ("/v1/render/spring?userid=u1", "E397", "user_id"),
        ("/v1/render/spring?user_id=u1&part=foo", "E397", ""),
    ],
)
def test_a_name_that_does_not_exist_is_told_with_the_one_that_was_meant(
    braze, path: str, code: str, meant: str
) -> None:
    async def story() -> Any:
        async with opened(braze) as shop:
            await shop.send(identify())
            return await shop.http.get(path, headers=READ)

    answer = asyncio.run(story())

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert (f"did you mean `{meant}`?" in answer.json()["fix"]) == bool(meant)
    assert "ann@example.com" not in answer.text


@pytest.mark.parametrize("known", ["phone:+441234567890", "esp.braze:b9", "shop.card:c1"])
def test_a_type_that_is_declared_or_known_of_somebody_is_read(braze, known: str) -> None:
    card = {
        "externalIds": [
            {"type": "shop.card", "id": "c1", "collection": "users", "encoding": "none"}
        ]
    }

    async def story() -> Any:
        async with opened(braze) as shop:
            await shop.send(identify() | {"context": GRANTED | card})
            return await shop.read(f"/v1/profiles/{known}")

    assert asyncio.run(story())["found"] == known.startswith("shop")


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer other"}, {"Authorization": "Basic read-key"}]
)
def test_nothing_is_read_without_a_key(play, header: dict[str, str]) -> None:
    async def story(shop: Shop) -> list[int]:
        await shop.send(identify())
        paths = (
            "/v1/profiles/user_id:u1",
            "/v1/decide/spring?user_id=u1",
            "/v1/render/spring?user_id=u1",
        )
        return [(await shop.http.get(path, headers=header)).status_code for path in paths]

    assert play(story) == [401, 401, 401]


def test_consent_that_is_withdrawn_empties_the_profile_at_once(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        await shop.send(identify(), view("p1"))
        shop.clock.advance(seconds=5)
        denied = {"consent": {"categoryPreferences": {"personalisation": False}}}
        body = {"type": "track", "event": "Segment Consent Preference Updated", "messageId": "c1",
                "userId": "u1", "context": denied, "writeKey": "server-key"}  # fmt: skip
        assert (await shop.http.post("/v1/track", json=body)).status_code == 200
        # Not folded yet as far as this read can know: the register alone gates it.
        gated = await shop.read("/v1/profiles/user_id:u1")
        await shop.node.engine.settled()
        shop.clock.advance(seconds=5)
        await shop.send({"type": "track", "event": "Segment Consent Preference Updated",
                         "messageId": "c2", "userId": "u1"})  # fmt: skip
        return gated, await shop.read("/v1/profiles/user_id:u1")

    gated, again = play(story)

    assert (gated["features"], gated["traits"], gated["permitted"]) == ({}, {}, ["measurement"])
    assert "personalisation" in again["permitted"]
    assert again["features"]["views_7d"] == 0  # what was computed before the withdrawal is gone


def test_what_consent_does_not_permit_is_named_and_no_more_is(braze) -> None:
    folder = braze.root
    (folder / "features.py").write_text(
        (folder / "features.py").read_text()
        + '    measured = count(product_viewed, over=days(7), purpose="measurement")\n'
    )
    text = (folder / "events.py").read_text().replace("import integer", "import private, integer")
    (folder / "events.py").write_text(
        text.replace("timezone=string()", 'timezone=string(privacy=private(purpose="measurement"))')
    )
    project = load_project(folder)
    only = {"consent": {"categoryPreferences": {"personalisation": True, "measurement": False}}}
    denied = {"consent": {"categoryPreferences": {"personalisation": False, "measurement": True}}}

    async def story() -> Any:
        async with opened(project) as shop:
            await shop.send(identify(), view("p1"))
            await shop.send(identify("u2", "a2", "bob@example.com") | {"context": only})
            await shop.send(identify("u3", "a3", "eve@example.com") | {"context": denied})
            people = [
                await shop.read(f"/v1/profiles/user_id:{one}")
                for one in ("u1", "u2", "u3", "nobody")
            ]
            past = await shop.read("/v1/profiles/user_id:u2", as_of="2027-01-01T00:00:00Z")
            tests = await shop.http.post("/v1/profiles", headers=READ,
                                         json={"people": [{"user_id": "u2"}, {"user_id": "u3"}]})  # fmt: skip
            return people, past, tests.json()["profiles"]

    (all_, some, other, nobody), past, batch = asyncio.run(story())
    for_measurement = ["measured", "timezone"]
    for_personalisation = ["bought", "email", "first_name", "viewed", "views_7d"]

    assert all_["withheld"] == []
    assert some["withheld"] == past["withheld"] == for_measurement
    assert other["withheld"] == for_personalisation
    assert nobody["withheld"] == sorted(for_measurement + for_personalisation)
    assert [one["withheld"] for one in batch] == [for_measurement, for_personalisation]
    for one in (all_, some, other, nobody):
        assert not {*one["features"], *one["traits"]} & {*one["withheld"]}


def test_a_public_key_cannot_read_or_forge_a_customers_record(play) -> None:
    async def story(shop: Shop) -> list[Any]:
        await shop.send(identify(), view("p1"))
        await shop.send(identify("u1", "evil", None, 9, first_name="Mallory"), view("p9", "u1", "evil"),
                        key="web-key")  # fmt: skip
        return [
            await shop.read("/v1/profiles/anonymous_id:evil"),
            await shop.read("/v1/profiles/user_id:u1"),
        ]

    evil, victim = play(story)

    assert evil["features"]["viewed"] == ["p9"]
    assert "email" not in evil["identifiers"]
    assert victim["traits"]["first_name"] == "Ann"


# ------------------------------------------------------------------------------------------- decide


def test_the_next_answer_knows_the_view(play) -> None:
    async def story(shop: Shop) -> Any:
        await stocked(shop)
        await shop.send(identify(), view("p2"), view("p1", number=2))
        return await shop.read("/v1/decide/spring", user_id="u1")

    answer = play(story)

    assert (answer["ok"], answer["served"], answer["reason"]) == (True, "live", "")
    assert answer["slots"]["hero"] == {
        "items": [{"title": "Red shoe", "url": "https://shop.example/p1", "category": "shoes", "stock": 3,
                   "price": {"amount_minor": 1999, "currency": "GBP"}}],
        "html": '<a href="https://shop.example/p1">Red shoe</a> £19.99',
    }  # fmt: skip


def test_asked_twice_it_gives_the_same_answer_and_counts_once(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any, list[str]]:
        await stocked(shop)
        await shop.send(identify(), view("p1"))
        first = await shop.read("/v1/decide/spring", user_id="u1", send="s1")
        await stocked(shop, {**SHOE, "title": "Renamed", "price": "5.00"})
        shop.clock.advance(seconds=1)
        await shop.send(view("p7", number=3))
        second = await shop.read("/v1/decide/spring", anonymous_id="a1", send="s1")
        await shop.node.pump.pump()
        await shop.node.engine.settled()
        kept = [decode_record(entry.value) for entry in shop.node.stores.log.read(0, 0, 1_000)]
        return first, second, [one.message_id for one in kept if one.name == "Decision Made"]

    first, second, decided = play(story)

    assert first["slots"] == second["slots"]
    assert decided == [first["decision_id"]]


def test_a_race_has_one_winner_and_the_losers_show_its_content(play) -> None:
    async def story(shop: Shop) -> set[str]:
        await stocked(shop)
        await shop.send(identify(), view("p1"))
        answers = await asyncio.gather(
            *(shop.read("/v1/decide/spring", user_id="u1", send="race") for _ in range(20))
        )
        return {msgspec.json.encode(answer["slots"]).decode() for answer in answers}

    assert len(play(story)) == 1


@pytest.mark.parametrize(("query", "reason"), [
    ({}, "E392"), ({"user_id": ""}, "E393"), ({"user_id": "u1", "anonymous_id": "a1"}, "E392"),
    ({"email_token": "forged"}, "E350"),
])  # fmt: skip
def test_whoever_names_nobody_gets_content(play, query: dict[str, str], reason: str) -> None:
    async def story(shop: Shop) -> Any:
        return await shop.read("/v1/decide/spring", **query)

    answer = play(story)

    assert (answer["served"], answer["reason"]) == ("fallback", reason)
    assert answer["slots"]["hero"]["items"] == [
        {"title": "New in", "url": "https://shop.example/new"}
    ]


def test_a_stranger_gets_content(play) -> None:
    async def story(shop: Shop) -> Any:
        return await shop.read("/v1/decide/spring", user_id="nobody-knows-me")

    answer = play(story)

    assert answer["ok"]
    assert answer["slots"]["hero"]["items"][0]["title"] == "New in"


def test_a_holdout_gets_what_everybody_would_get(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        await stocked(shop)
        await shop.send(identify(), view("p1"))
        return (
            await shop.read("/v1/decide/held", user_id="u1"),
            await shop.read("/v1/decide/held", user_id="u1", preview=1),
        )

    held, preview = play(story)

    assert (held["served"], held["reason"]) == ("holdout", "campaign")
    assert held["slots"]["hero"]["items"][0]["title"] == "New in"
    assert (preview["served"], preview["slots"]["hero"]["items"][0]["title"]) == (
        "live",
        "Red shoe",
    )


def test_a_preview_touches_nothing(play) -> None:
    async def story(shop: Shop) -> list[Any]:
        await stocked(shop)
        await shop.send(identify(), view("p1"))
        await shop.read("/v1/decide/spring", user_id="u1", preview=1)
        return shop.node.stores.decisions.outbox(10)

    assert play(story) == []


def test_many_recipients_are_answered_in_order(play) -> None:
    async def story(shop: Shop) -> Any:
        await stocked(shop)
        await shop.send(identify(), view("p1"))
        answer = await shop.http.post("/v1/decide/spring", headers=READ, json={
            "recipients": [{"email": "ann@example.com"}, {}, {"user_id": "u1"}, {"user_id": "u2"}],
        })  # fmt: skip
        return [
            (one["served"], one["slots"]["hero"]["items"][0]["title"])
            for one in answer.json()["answers"]
        ]

    assert play(story) == [
        ("live", "Red shoe"), ("fallback", "New in"), ("live", "Red shoe"), ("live", "New in"),
    ]  # fmt: skip


def test_an_unknown_campaign_is_no_error_but_says_so(play) -> None:
    async def story(shop: Shop) -> Any:
        return await shop.read("/v1/decide/winter", user_id="u1")

    answer = play(story)

    assert (answer["ok"], answer["served"], answer["reason"]) == (
        False,
        "fallback",
        "unknown_campaign",
    )


class Away(MemoryDecisions):
    """A decision store that does not answer writes."""

    def put_if_absent(self, items):
        raise Unavailable("E404", "the decision store did not answer", fix="retry")


def test_what_cannot_be_recorded_is_undecided(project) -> None:
    async def story() -> Any:
        async with opened(
            project, lambda stores: dataclasses.replace(stores, decisions=Away())
        ) as shop:
            await stocked(shop)
            await shop.send(identify(), view("p1"))
            answer = await shop.read("/v1/decide/spring", user_id="u1")
            undecided = shop.node.metrics.value("penstock_decisions_total", outcome="undecided")
            return answer, undecided

    answer, undecided = asyncio.run(story())

    assert (answer["ok"], answer["served"], answer["reason"]) == (True, "fallback", "undecided")
    assert (answer["decision_id"], undecided) == ("", 1)


# ------------------------------------------------------------------------------------------- render


def test_the_whole_email_is_personal_signed_and_sized(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any, Any]:
        await stocked(shop)
        await shop.send(identify(first_name="<b>Ann</b>"), view("p1"))
        html = await shop.http.get("/v1/render/spring", params={"user_id": "u1"}, headers=READ)
        text = await shop.http.get(
            "/v1/render/spring", params={"user_id": "u1", "part": "text"}, headers=READ
        )
        preview = await shop.http.get(
            "/v1/render/spring", params={"user_id": "u1", "preview": 1}, headers=READ
        )
        return html, text, preview

    html, text, preview = play(story)

    assert html.headers["content-type"] == "text/html; charset=utf-8"
    assert html.headers["x-penstock-size"].endswith(" ok")
    assert "Hi &lt;b&gt;Ann&lt;/b&gt;" in html.text
    assert "https://mail.shop.example/c/" in html.text
    assert "https://mail.shop.example/o/" in html.text
    assert "utm_campaign%3Dspring" in html.text
    assert "Red shoe" in text.text
    assert "/c/" not in preview.text
    assert "/o/" not in preview.text


# --------------------------------------------------------------------------------------------- mail


async def rendered_links(shop: Shop) -> dict[str, str]:
    await stocked(shop)
    await shop.send(identify(), view("p1"))
    html = (await shop.http.get("/v1/render/spring", params={"user_id": "u1"}, headers=READ)).text
    found = [
        part.partition('"')[0].replace("&amp;", "&")
        for part in html.split('"https://mail.shop.example')[1:]
    ]
    return {
        link.split("/")[1] + link.split("/")[2][:1] if link.startswith("/v1") else link[1]: link
        for link in found
    }


def test_a_click_goes_to_what_was_shown_and_is_an_event(play) -> None:
    async def story(shop: Shop) -> tuple[Any, Any]:
        links = await rendered_links(shop)
        answer = await shop.http.get(
            links["c"], headers={"User-Agent": "Mozilla/5.0 (iPhone) Safari"}
        )
        await shop.node.engine.settled()
        kept = [decode_record(entry.value) for entry in shop.node.stores.log.read(0, 0, 1_000)]
        return answer, [one for one in kept if one.name == "Email Link Clicked"]

    answer, clicks = play(story)

    assert answer.status_code == 302
    assert answer.headers["location"].startswith("https://shop.example/p1?utm_source=penstock")
    assert [
        (one.properties["slot"], one.properties["campaign_id"], one.properties["fetcher"])
        for one in clicks
    ] == [("hero", "spring", "human_likely")]


def test_a_link_that_was_altered_leads_nowhere(play) -> None:
    async def story(shop: Shop) -> Any:
        links = await rendered_links(shop)
        token = links["c"].partition("?")[0]
        return await shop.http.get(token, params={"u": "https://evil.example/"})

    answer = play(story)

    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_the_pixel_is_always_a_pixel_and_never_cached(play) -> None:
    async def story(shop: Shop) -> list[Any]:
        links = await rendered_links(shop)
        return [await shop.http.get(path) for path in (links["o"], "/o/forged.gif")]

    answers = play(story)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.headers["content-type"] for answer in answers} == {"image/gif"}
    assert all("no-store" in answer.headers["cache-control"] for answer in answers)


def test_get_shows_a_page_and_one_post_unsubscribes_for_good(play) -> None:
    async def story(shop: Shop) -> tuple[list[int], list[bool], int]:
        links = await rendered_links(shop)
        path = next(link for name, link in links.items() if name.startswith("v1"))
        statuses = [(await shop.http.get(path)).status_code]
        leaf = shop.node.collector.make_leaf("email", "ann@example.com")
        denied = [any(entry.denied for entry in shop.node.stores.suppressions.get([leaf]).values())]
        for _ in range(2):
            answer = await shop.http.post(
                path, content="List-Unsubscribe=One-Click",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )  # fmt: skip
            statuses.append(answer.status_code)
        denied.append(
            any(entry.denied for entry in shop.node.stores.suppressions.get([leaf]).values())
        )
        kept = [decode_record(entry.value) for entry in shop.node.stores.log.read(0, 0, 1_000)]
        return (
            statuses,
            denied,
            sum(one.name == "Unsubscribed" and one.kind == Kind.PRIMARY for one in kept),
        )

    statuses, denied, records = play(story)

    assert (statuses, denied) == ([200, 200, 200], [False, True])
    assert records >= 1


def test_one_topic_ends_the_others_go_on_and_all_can_end(play) -> None:
    async def story(shop: Shop) -> tuple[list[str], list[list[bool]]]:
        leaf = shop.node.collector.make_leaf("email", "ann@example.com")
        path = make_links(shop.node, "").unsubscribe(leaf, "offers")
        register = shop.node.stores.suppressions
        pages: list[str] = []
        may: list[list[bool]] = []

        def look() -> None:
            found = register.get([leaf])
            may.append([may_send(found, "email", topic)[0] for topic in ("offers", "news")])

        pages.append((await shop.http.get(path)).text)
        look()
        pages.append((await shop.http.post(path)).text)
        look()
        # The button for all is a link of its own, beside this page's.
        every = pages[0].rpartition('action="')[2].partition('"')[0]
        pages.append((await shop.http.post(path.rpartition("/")[0] + "/" + every)).text)
        look()
        pages.append((await shop.http.get(path)).text)
        return pages, may

    pages, may = play(story)

    assert [[True, True], [False, True], [False, False]] == may
    assert "emails about “offers”?" in pages[0]
    assert "no emails about “offers” any more; other emails go on" in pages[1]
    assert "no emails from us any more" in pages[2]
    assert "no emails from us any more" in pages[3]


def test_operations_tell_the_truth(play) -> None:
    async def story(shop: Shop) -> list[Any]:
        before = await shop.http.get("/ready")
        shop.clock.set_back(3_600_000)
        after = await shop.http.get("/ready")
        metrics = await shop.http.get("/metrics")
        return [before.status_code, after.status_code, after.json()["ok"], metrics.text]

    before, after, ok, metrics = play(story)

    assert (before, after, ok) == (200, 503, False)
    assert "# TYPE penstock_events_accepted_total counter" in metrics
