"""What the admin API takes and answers: the same structs document, validate and encode."""

from __future__ import annotations

from typing import Any

import msgspec


class LoadRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of a file."""

    kind: str
    """`items`, `people` or `events`."""
    rows: list[dict[str, Any]]
    source: str
    job: str
    first: int = 1
    """The number of the first row in its file."""


class RowRefusal(msgspec.Struct, frozen=True):
    """A row that was refused: its place in the call, and why."""

    index: int
    code: str
    what: str
    path: str


class RowsLoaded(msgspec.Struct, frozen=True):
    """What became of the rows of one call."""

    kept: int
    refused: list[RowRefusal]
    dropped: dict[str, int] = {}
    """Rows of which nothing was kept, by reason."""
    undeclared: dict[str, int] = {}
    """Columns that nothing declares, with the number of rows whose value was dropped."""
    meant: dict[str, str] = {}
    """Of those, the declared name that a column is nearest to."""
    no_addresses: int = 0
    """Rows of people that were kept, and whose `email` is no address."""


class AskProfiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of people to export."""

    after: str = ""
    """What the page before answered; empty to begin."""
    limit: int = 500
    as_of: str = ""
    """An instant, ISO 8601; empty for now."""
    audience: str = ""
    identifiers: bool = False
    """Whether to add raw user ids and addresses."""


class ProfilesPage(msgspec.Struct, frozen=True):
    """A page of people, each with what may be served of them."""

    rows: list[dict[str, Any]]
    after: str
    """Where the next page begins; empty after the last."""
    withheld: int
    """How many people permit nothing, and are left out."""
    damaged: list[str] = []
    """The leaves that do not read back, by their ids, which are hashes; who has one is left out."""


class StartSend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A campaign to send."""

    campaign: str
    audience: str = ""
    """Empty for the campaign's own."""
    send: str = ""
    """Empty for the campaign's version and the UTC day."""
    dry_run: bool = False
    retry_in_doubt: bool = False
    republish: bool = False
    """Go over to the definitions that serve now, whatever the campaign was published with."""


class SendReport(msgspec.Struct, frozen=True):
    """A send so far, or at its end."""

    done: bool
    campaign: str
    send: str
    seen: int
    outcomes: dict[str, int]
    in_doubt: list[str] = []
    """Email tokens of those who may or may not have got it; never addresses."""
    sample: list[str] = []
    """For a dry run: email tokens of a few members."""
    error: dict[str, str] = {}
    """Why the send ended early: `code`, `what`, `fix` and `where`; empty if it did not."""


class AskWhy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision to explain: of whom, in which campaign and send."""

    campaign: str
    user_id: str | None = None
    anonymous_id: str | None = None
    email: str | None = None
    email_token: str | None = None
    send: str = ""
    slot: str = ""
    at: str = ""
    """An instant, ISO 8601: what was decided by then, or would have been; empty for now."""


class Why(msgspec.Struct, frozen=True):
    """A decision explained."""

    recorded: bool
    """False for a preview: nothing was decided for this send yet."""
    known: bool
    """False if nothing is known of who was asked about: it is explained what a stranger sees."""
    lines: list[str]
    explanation: dict[str, Any]
    checked: dict[str, Any] = {}
    """What a replay of the person's records says of the recorded values; empty for a preview."""


class NamedIdentifier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An identifier of a person."""

    id_type: str
    """`user_id`, `anonymous_id`, `email`, `email_token`, `claimed_user_id`, `phone` or one of your own."""
    value: str


class CutIdentifiers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two identifiers to cut apart."""

    one: NamedIdentifier
    other: NamedIdentifier


class CutEdge(msgspec.Struct, frozen=True):
    """An edge that was undone: who said it, and since when it stood."""

    a_type: str
    """The type of the identifier whose event said it."""
    b_type: str
    rule: str
    """`identify`, `track`, `alias` and so on: what kind of event it was."""
    verified: bool
    """False if only a public key said it."""
    since: str


class CutReport(msgspec.Struct, frozen=True):
    """What a cut undid; nothing if the two were cut before and not joined since."""

    undone: list[CutEdge]


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, without the event itself."""

    letter_id: str
    source: str
    received_at: str
    reason: str
    path: str
    what: str
    message_id: str


class Letters(msgspec.Struct, frozen=True):
    """Dead letters, oldest first."""

    letters: list[Letter]
    pending: int


class ReplayLetters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters to send in again: all, or those with a reason."""

    reason: str = ""


class LettersReplayed(msgspec.Struct, frozen=True):
    """What became of the letters.

    Attributes:
        accepted: In the log now.
        refused: Refused again, by code.
        quarantined: Left: their identifiers are over `store.leaf_bytes_max`. Their events are in the log.
        counted: Of identifiers that are quarantined no more; their events count, and they are settled.
    """

    accepted: int
    refused: dict[str, int]
    quarantined: int
    counted: int


class Status(msgspec.Struct, frozen=True):
    """How the node is, and the conservation law over what it holds."""

    ready: bool
    reason: str
    live: bool
    epoch: int
    head: int
    """Records in the log."""
    lag: int
    """Records in the log that are not folded yet."""
    accepted: int
    """Primaries in the log, and events refused at the edge as dead letters."""
    applied: int
    deduplicated: int
    policy_dropped: int
    dead_lettered: int
    in_flight: int
    conserved: bool
    """Whether accepted = applied + deduplicated + policy-dropped + dead-lettered + in flight."""
    links: int
    leaves: int
    age_ms: int = 0
    """How old what reads reflect was, when this was asked."""


class StartApply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Definitions to apply: those that the project's folder holds now."""

    republish: bool = False
    """Whether published campaigns go over to them."""
    allow_breaks: bool = False
    """Whether events may change in ways that break those who send or read them."""
    allow_incomplete: bool = False
    """Whether new features may look back further than the log is kept; they say `complete_since`."""


class ApplyReport(msgspec.Struct, frozen=True):
    """An apply so far, or at its end."""

    done: bool
    number: int
    """The version; 0 until it has one."""
    state: str
    """`building`, `checking`, `active` or `failed`."""
    folded: int
    """Records of the log that the new leaves reflect."""
    total: int
    per_s: int
    remaining_s: int | None
    agreed_leaves: int = 0
    """Leaves compared with those that served, where both definitions agree: the same bytes."""
    agreed_states: int = 0
    error: dict[str, str] | None = None


class RollBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which definitions to go back to."""

    version: int = 0
    """0 for those that served before."""


class VersionView(msgspec.Struct, frozen=True):
    """One version of the definitions, and what it costs beside the one that serves."""

    number: int
    state: str
    epoch: int
    created_at: str
    keep_until: str
    """Until when it can be rolled back to; empty if it can't."""
    campaigns: list[str]
    """Those that were published with it, as `name@version`."""
    lag: int
    """Records that it is behind the one that serves."""
    cpu_ms_per_1000: float
    """What 1,000 records cost to fold into it."""
    cpu_share: float
    """The share of one core that it has taken, since it was kept or the process started."""
    leaves: int
    bytes: int
    """What its leaves take in the store."""


class VersionsView(msgspec.Struct, frozen=True):
    """All versions that are kept."""

    active: int
    versions: list[VersionView]
