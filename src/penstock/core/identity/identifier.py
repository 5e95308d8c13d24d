"""Identifiers of people and things: their types and limits, how a value is normalised, which are junk."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.core.errors import DefinitionError

USER: Final = "user_id"
ANONYMOUS: Final = "anonymous_id"
EMAIL: Final = "email"
CLAIMED_USER: Final = "claimed_user_id"
PHONE: Final = "phone"
GROUP: Final = "group_id"
ITEM: Final = "item_id"

ENTITY_TYPES: Final = frozenset({ITEM, GROUP})
"""Types of things: their leaves hold traits and never join people."""

DEVICE_TYPES: Final = frozenset({ANONYMOUS, CLAIMED_USER})
"""Types whose leaf may have been used by several people, and which may claim without proof."""

VALUE_BYTES_MAX: Final = 512
EMAIL_BYTES_MAX: Final = 254
"""RFC 5321 §4.5.3.1.3: a path has 256 octets, two of them the angle brackets."""

LEAVES_MAX: Final = 64
"""Leaves of one person; beyond it a read is `stale` with reason `identity_bound`."""

# Sources: PostHog's list of refused distinct ids, Segment's default blocked values, and what
# test suites, forms and half-initialised SDKs send.
JUNK: Final = frozenset({
    "anonymous", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "undefined",
    "unknown", "unidentified", "null", "(null)", "nil", "none", "(none)", "nan", "n/a", "na", "true",
    "false", "[object object]", "email", "user", "user_id", "userid", "anonymous_id", "anonymousid",
    "test", "admin", "default", "-1", "example@example.com", "user@example.com",
    "test@example.com", "test@test.com", "none@none.com", "noemail@noemail.com", "email@email.com",
    "email@example.com", "a@a.com", "ffffffff-ffff-ffff-ffff-ffffffffffff",
})  # fmt: skip

_ZEROS = re.compile(r"[0-]*")  # "0", "-", an all-zero UUID or advertising id
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_-]+)*")
_TYPE_BYTES_MAX = 64
_QUOTES = "\"'`"
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_EMAIL_REFUSED = frozenset(' \t,;:<>()[]"\\')
_PHONE_NOISE = str.maketrans("", "", " \t-.()/\u00a0")
_WHOLE_MAX = 1 << 53


class TypeRule(NamedTuple):
    """How one identifier type takes part in joining people."""

    priority: int
    """Smaller is stronger: a leaf attaches to a neighbour of a stronger type."""
    limit: int
    """Most leaves of this type that one person may have."""


DEFAULT_TYPES: Final[Mapping[str, TypeRule]] = {
    USER: TypeRule(0, 5),
    EMAIL: TypeRule(10, 5),
    ANONYMOUS: TypeRule(90, 24),
    CLAIMED_USER: TypeRule(95, 5),
}
OTHER_TYPE: Final = TypeRule(20, 5)
"""The rule of an external id type that has none of its own, such as `phone`."""


class IdentityRules(msgspec.Struct, frozen=True, kw_only=True):
    """Who is one person. Make one with `with_overrides`, which checks; the default needs no check.

    Attributes:
        types: Rules by identifier type; a type not named follows `other`.
        blocked: Values that never join anybody, casefolded, besides zeros and dashes.
        shared_anonymous: Whom a device belongs to that two people used: `neither` or `first`.
        leaves_max: Leaves of one person.
    """

    types: Mapping[str, TypeRule] = msgspec.field(default_factory=lambda: DEFAULT_TYPES)
    other: TypeRule = OTHER_TYPE
    blocked: frozenset[str] = JUNK
    shared_anonymous: str = "neither"
    leaves_max: int = LEAVES_MAX

    @classmethod
    def with_overrides(
        cls,
        *,
        limits: Mapping[str, int] | None = None,
        blocked_values: Sequence[str] = (),
        shared_anonymous: str = "neither",
    ) -> "IdentityRules":
        """Return the default rules with a project's own limits, blocked values and policy.

        Args:
            limits: Most leaves a person may have, by identifier type; at least 1 each.
            blocked_values: Values that never join anybody, besides the usual junk; any case.
            shared_anonymous: `neither` or `first`.

        Raises:
            DefinitionError: A limit is out of range (E130), a type is no person's (E131), or the
                policy is none of the two (E132).
        """
        types = dict(DEFAULT_TYPES)
        for id_type, limit in (limits or {}).items():
            if not 1 <= limit <= LEAVES_MAX:
                raise DefinitionError("E130", f"an identifier limit is not between 1 and {LEAVES_MAX}",
                                      where=f"identity.limits.{id_type}", fix="choose another limit")  # fmt: skip
            if id_type in ENTITY_TYPES or not is_type(id_type):
                raise DefinitionError("E131", "this is no identifier type of a person",
                                      where=f"identity.limits.{id_type}",
                                      fix="name a type such as `email`, `phone` or `esp.braze`")  # fmt: skip
            types[id_type] = types.get(id_type, OTHER_TYPE)._replace(limit=limit)
        if shared_anonymous not in {"neither", "first"}:
            raise DefinitionError("E132", "the policy for shared devices is neither `neither` nor `first`",
                                  where="identity.shared_anonymous", fix="write `neither` or `first`")  # fmt: skip
        extra = frozenset(_folded(value) for value in blocked_values)
        return cls(types=types, blocked=JUNK | extra, shared_anonymous=shared_anonymous)

    def rule(self, id_type: str) -> TypeRule:
        """Return the rule of an identifier type."""
        return self.types.get(id_type, self.other)


def is_type(id_type: str) -> bool:
    """Return whether a name can be an identifier type, such as `phone` or `esp.braze`."""
    return len(id_type) <= _TYPE_BYTES_MAX and _TYPE.fullmatch(id_type) is not None


def normalise(id_type: str, value: object) -> str | None:
    """Return an identifier's one spelling, or None if the value can be no identifier.

    Text is trimmed, freed of invisible characters at its ends and composed (NFC). Emails are
    lower-cased, phones keep `+` and digits, whole numbers are written in digits; other types keep
    their case, since a user id may be case-sensitive. Lower-case, not casefold, because casefold
    makes one address of two that a mail server tells apart (`ß` and `ss`).

    Args:
        id_type: The identifier's type.
        value: Text or a whole number below 2⁵³.

    Laws:
        normalise(t, normalise(t, v)) == normalise(t, v)
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < _WHOLE_MAX:
        text = str(value)
    else:
        return None
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _trimmed(text)
    if id_type == EMAIL:
        text = _email(text)
    elif id_type == PHONE:
        text = _phone(text)
    if not text or not text.isprintable():
        return None  # NUL, control characters, lone surrogates, line and paragraph separators
    if len(text) > VALUE_BYTES_MAX or len(text.encode()) > VALUE_BYTES_MAX:
        return None
    return text


def blocked(value: str, rules: IdentityRules) -> bool:
    """Return whether a normalised value is junk that would glue strangers together."""
    return blocked_by(value, rules.blocked)


def blocked_by(value: str, junk: frozenset[str]) -> bool:
    """Return whether a normalised value is among junk values, casefolded, or is all zeros."""
    folded = _folded(value)
    return folded in junk or _ZEROS.fullmatch(folded) is not None


def _trimmed(text: str) -> str:
    trimmed = text.strip().strip(_INVISIBLE)
    while trimmed != text:
        text, trimmed = trimmed, trimmed.strip().strip(_INVISIBLE)
    return trimmed


def _folded(value: str) -> str:
    return value.strip().strip(_QUOTES).strip().casefold()


def _email(text: str) -> str:
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    local, at, domain = text.rpartition("@")
    domain = domain.rstrip(".")
    if not at or not local or not domain or "@" in local or not _EMAIL_REFUSED.isdisjoint(text):
        return ""
    address = f"{local}@{domain}"
    try:
        return address if len(address.encode()) <= EMAIL_BYTES_MAX else ""
    except UnicodeEncodeError:
        return ""


def _phone(text: str) -> str:
    text = text.translate(_PHONE_NOISE)
    plus = "+" if text.startswith(("+", "00")) else ""
    digits = text[1:] if text.startswith("+") else text[2:] if plus else text
    return plus + digits if digits.isascii() and digits.isdigit() and 4 <= len(digits) <= 15 else ""
