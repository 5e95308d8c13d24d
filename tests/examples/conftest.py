"""What the tests of the documentation's commands need."""

import socket
from collections.abc import Callable

import pytest


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Return ports that are free now: one, and as many more that follow on each other."""

    def find(count: int) -> list[int]:
        while True:
            with socket.socket() as alone, socket.socket() as first:
                alone.bind(("127.0.0.1", 0))
                first.bind(("127.0.0.1", 0))
                at = first.getsockname()[1]
                rest = [at + place for place in range(count - 1)]
                if all(map(_free, rest[1:])):
                    return [alone.getsockname()[1], *rest]

    return find


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True
