"""Every error Penstock raises on purpose, as a tree, with codes and fixes.

PenstockError
├── DefinitionError   E1xx  a feature, slot, audience or template is wrong   author fixes the definition  exit 2
├── SettingsError     E2xx  the configuration is wrong                       operator fixes the settings  exit 3
├── EventRejected     E3xx  one event, row or request is wrong               sender fixes it              HTTP 400
├── Unavailable       E4xx  a dependency did not answer                      retry, it is safe            HTTP 503
│   └── Overloaded          we cannot keep up                                slow down                    HTTP 429
├── Conflict          E5xx  somebody else was first                          read again, retry            HTTP 409
├── Fenced            E6xx  another worker owns this partition               stop this worker             exit 75
└── DataCorrupt       E7xx  bytes we wrote do not read back                  stop; run `penstock doctor`  exit 70

A message says what is wrong and where, and how to fix it; it never quotes a personal value.
"""

from typing import ClassVar


class PenstockError(Exception):
    """The root: carries a code, what is wrong, where, and what to do.

    Args:
        code: `E` and three digits; each has an entry in `core/codes.py`.
        what: One factual sentence, without any value that came from a person.
        fix: An imperative: what the reader does next, with a command where there is one.
        where: File and line, setting name, or JSON path of the fault; empty if there is no place.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, what: str, *, fix: str, where: str = "") -> None:
        super().__init__(code, what, fix, where)
        self.code = code
        self.what = what
        self.fix = fix
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.code}: {self.what}{place}\n  fix: {self.fix}"


class DefinitionError(PenstockError):
    """An author's definition is wrong; the author fixes it."""

    exit_code = 2


class SettingsError(PenstockError):
    """The configuration is wrong; the operator fixes it."""

    exit_code = 3


class EventRejected(PenstockError):
    """One event, row or request is wrong; its sender fixes it."""


class Unavailable(PenstockError):
    """A dependency did not answer; a retry is safe."""

    exit_code = 69


class Overloaded(Unavailable):
    """More arrives than can be kept; slow down and retry.

    Args:
        retry_after_s: Whole seconds after which a retry has a chance.
    """

    def __init__(self, code: str, what: str, *, fix: str, retry_after_s: int = 1) -> None:
        super().__init__(code, what, fix=fix)
        self.retry_after_s = retry_after_s


class Conflict(PenstockError):
    """Somebody else was first; read again and retry."""


class Fenced(PenstockError):
    """Another worker owns this partition; stop this one."""

    exit_code = 75


class DataCorrupt(PenstockError):
    """Bytes that we wrote do not read back; stop and run `penstock doctor`."""

    exit_code = 70


class DamagedLeaf(DataCorrupt):
    """One stored leaf does not read back, which concerns whoever it belongs to and nobody else.

    Args:
        leaf: Its id, 16 bytes.
    """

    def __init__(self, code: str, what: str, *, fix: str, leaf: bytes, where: str = "") -> None:
        super().__init__(code, what, fix=fix, where=where)
        self.leaf = leaf
