"""What every key table does: a key is made once and never changes."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from penstock.core.errors import Unavailable
from penstock.ports.keys import IDENTIFIER_KEY, TOKEN_KEY, Keys


def a_secret(n: int) -> bytes:
    """Return a secret that is none."""
    return bytes([n]) * 32


class KeysConformance:
    """Subclass it as `Test…` and say how to make the table."""

    def make(self, folder: Path) -> Keys:
        """Return a key table in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def keys(self, tmp_path: Path) -> Keys:
        return self.make(tmp_path)

    def test_a_missing_key_is_said_to_be_missing(self, keys: Keys):
        assert [] == keys.names()
        with pytest.raises(Unavailable, match="E405") as raised:
            keys.get(IDENTIFIER_KEY)
        assert f"`{IDENTIFIER_KEY}`" in raised.value.what

    def test_the_first_secret_stands(self, keys: Keys):
        assert a_secret(1) == keys.put_if_absent(IDENTIFIER_KEY, a_secret(1))
        assert a_secret(1) == keys.put_if_absent(IDENTIFIER_KEY, a_secret(2))
        assert a_secret(1) == keys.get(IDENTIFIER_KEY)

    def test_keys_are_kept_apart_and_named_in_order(self, keys: Keys):
        secrets = {
            TOKEN_KEY: bytes(range(32)),
            IDENTIFIER_KEY: a_secret(255),
            "leaf/ü 1": a_secret(0),
        }
        for name, secret in secrets.items():
            keys.put_if_absent(name, secret)
        assert secrets == {name: keys.get(name) for name in secrets}
        assert sorted(secrets) == keys.names()

    def test_a_key_of_another_length_is_a_mistake(self, keys: Keys):
        with pytest.raises(AssertionError):
            keys.put_if_absent(IDENTIFIER_KEY, b"short")
        assert [] == keys.names()

    def test_of_threads_that_race_one_wins_and_all_get_its_key(self, keys: Keys):
        start = Barrier(6)

        def put(worker: int) -> bytes:
            start.wait()
            return keys.put_if_absent(IDENTIFIER_KEY, a_secret(worker))

        with ThreadPoolExecutor(6) as pool:
            standing = set(pool.map(put, range(6)))
        assert {keys.get(IDENTIFIER_KEY)} == standing


class DurableKeysConformance(KeysConformance):
    """For tables that outlive their process."""

    def test_keys_are_there_after_opening_again(self, tmp_path: Path):
        self.make(tmp_path).put_if_absent(IDENTIFIER_KEY, a_secret(1))
        self.make(tmp_path).put_if_absent(TOKEN_KEY, a_secret(2))
        keys = self.make(tmp_path)
        assert a_secret(1) == keys.put_if_absent(IDENTIFIER_KEY, a_secret(3))
        assert (a_secret(1), a_secret(2)) == (keys.get(IDENTIFIER_KEY), keys.get(TOKEN_KEY))

    def test_of_two_processes_one_wins(self, tmp_path: Path):
        tables = [self.make(tmp_path) for _ in range(6)]
        start = Barrier(6)

        def put(worker: int) -> bytes:
            start.wait()
            tables[worker].put_if_absent(str(worker), a_secret(worker))
            return tables[worker].put_if_absent(IDENTIFIER_KEY, a_secret(worker))

        with ThreadPoolExecutor(6) as pool:
            standing = set(pool.map(put, range(6)))
        assert {self.make(tmp_path).get(IDENTIFIER_KEY)} == standing
        assert sorted([IDENTIFIER_KEY, *map(str, range(6))]) == self.make(tmp_path).names()
        assert a_secret(3) == tables[0].get("3")
