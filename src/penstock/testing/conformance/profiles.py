"""What every read path does: leaves in the order asked, in one call, and the truth about their age."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import pytest

from penstock.core.ids import LeafId
from penstock.core.record import Record
from penstock.ports.profiles import Profiles, read_versions
from penstock.testing.clock import HandClock


class Reading(NamedTuple):
    """A read path with what a test needs around it."""

    profiles: Profiles
    clock: HandClock
    append: Callable[[list[Record]], Awaitable[None]]
    """Append records, durable on return, and have them folded."""
    make_record: Callable[[str, int], Record]
    """Make an event of a user, by (user id, number), that counts once by its number."""
    make_leaf: Callable[[str], LeafId]
    """The leaf of a user id."""


class ProfilesConformance:
    """Subclass it as `Test…` and say how to open the read path."""

    def open(self) -> AbstractAsyncContextManager[Reading]:
        """Return a read path over an empty log; left, it is closed."""
        raise NotImplementedError

    def play(self, story: Callable[[Reading], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.open() as reading:
                await story(reading)

        asyncio.run(run())

    def test_nothing_is_known_of_anybody_at_first(self):
        async def story(r: Reading) -> None:
            read = await r.profiles.read([r.make_leaf("u1"), r.make_leaf("u2")])
            assert [None, None] == read.leaves
            assert (r.clock.now_ms(), True) == (read.as_of_ms, read.live)
            assert [] == (await r.profiles.read([])).leaves

        self.play(story)

    @pytest.mark.parametrize(
        "order", [("u1", "u2", "nobody"), ("nobody", "u2", "u1"), ("u2", "u2")]
    )
    def test_leaves_come_in_the_order_asked(self, order: tuple[str, ...]):
        async def story(r: Reading) -> None:
            await r.append([r.make_record("u1", 1), r.make_record("u2", 2), r.make_record("u2", 3)])
            read = await r.profiles.read([r.make_leaf(user) for user in order])
            counts = {"u1": 1, "u2": 2, "nobody": None}
            assert [counts[user] for user in order] == [
                leaf.applied if leaf is not None else None for leaf in read.leaves
            ]
            assert [r.make_leaf(user) for user in order if user != "nobody"] == [
                leaf.leaf for leaf in read.leaves if leaf is not None
            ]

        self.play(story)

    def test_the_versions_are_those_of_the_leaves(self):
        async def story(r: Reading) -> None:
            leaves = [r.make_leaf(user) for user in ("u1", "nobody", "u2", "u1")]
            told: list[tuple[int, int] | None] = []
            for number, user in enumerate(("u1", "u2", "u1"), 1):
                await r.append([r.make_record(user, number)])
                read = await r.profiles.read(leaves)
                as_said = await read_versions(r.profiles, leaves)
                assert [None if one is None else one.version for one in read.leaves] == (
                    as_said.versions
                )
                assert (read.as_of_ms, read.live) == (as_said.as_of_ms, as_said.live)
                assert [] == (await read_versions(r.profiles, [])).versions
                told.append(as_said.versions[0])
            assert told[0] == told[1] != told[2]

        self.play(story)

    def test_what_is_appended_and_folded_is_read_at_once(self):
        async def story(r: Reading) -> None:
            for number in range(1, 6):
                await r.append([r.make_record("u1", number)])
                (leaf,) = (await r.profiles.read([r.make_leaf("u1")])).leaves
                assert leaf is not None
                assert number == leaf.applied
                r.clock.advance(seconds=1)

        self.play(story)

    def test_a_copy_is_not_counted(self):
        async def story(r: Reading) -> None:
            await r.append([r.make_record("u1", 1)] * 3)
            (leaf,) = (await r.profiles.read([r.make_leaf("u1")])).leaves
            assert leaf is not None
            assert (1, 2) == (leaf.applied, leaf.deduplicated)

        self.play(story)

    def test_the_age_is_that_of_the_newest_record_or_now(self):
        async def story(r: Reading) -> None:
            await r.append([r.make_record("u1", 1)])
            appended_ms = r.clock.now_ms()
            r.clock.advance(hours=1)
            read = await r.profiles.read([r.make_leaf("u1")])
            (leaf,) = read.leaves
            assert leaf is not None
            assert appended_ms == leaf.clock_ms
            assert appended_ms <= read.as_of_ms <= r.clock.now_ms()

        self.play(story)

    def test_reading_changes_nothing(self):
        async def story(r: Reading) -> None:
            await r.append([r.make_record("u1", 1)])
            counts = []
            for _ in range(3):
                (leaf,) = (await r.profiles.read([r.make_leaf("u1")])).leaves
                assert leaf is not None
                counts.append((leaf.applied, leaf.version, leaf.size))
            assert 1 == len(set(counts))

        self.play(story)
