"""A campaign: which slots an email has, whom it spares for measurement, and what counts as success."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.core.decision.mailbox import is_sender, mailbox_of
from penstock.core.decision.pace import NONE, parse_quiet_hours
from penstock.core.decision.policy import MILLION
from penstock.core.decision.predicate import Names, check_topic, nearest
from penstock.core.decision.slot import Slot
from penstock.core.decision.values import as_mapping, as_sequence
from penstock.core.errors import DefinitionError
from penstock.core.toml_lines import Places

HOLDOUT_SHARE_PPM: Final = 50_000
UNIFORM_SHARE_PPM: Final = 50_000
"""Both are on unless a campaign says 0: an effect is measured, or not claimed."""

GOAL_DAYS: Final = 7
SLOTS_MAX: Final = 20


class Goal(msgspec.Struct, frozen=True):
    """The event that counts as success, within so many days of the exposure."""

    event: str
    days: int = GOAL_DAYS


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign as `campaigns/<name>.toml` declares it.

    Attributes:
        name: The file's name.
        version: Counted up by the author when the campaign changes; part of the default send.
        slots: What is decided, in the order of the file.
        holdout_share_ppm: Share of recipients who get fallbacks for ever, parts per million.
        uniform_share_ppm: Share of decisions that draw uniformly, at least, in every slot.
        goal: What counts as success.
        template: The whole email, `content/<template>.liquid`.
        subject, preheader: Liquid texts.
        topic: What people subscribe to and unsubscribe from.
        channel: `email`.
        audience: Whom it is for, by default.
        from_name, from_address, reply_to: The sender.
        utm: Tags added to links.
        cap: The class of emails it counts as, of `email.caps`; `none` or empty: it counts as none.
        quiet_hours: When people are not written to, in their time, as `21:00-08:00`; `none` or empty
            for always.
        where: The file.
    """

    name: str
    version: int = 1
    slots: tuple[Slot, ...] = ()
    holdout_share_ppm: int = HOLDOUT_SHARE_PPM
    uniform_share_ppm: int = UNIFORM_SHARE_PPM
    goal: Goal | None = None
    template: str = ""
    subject: str = ""
    preheader: str = ""
    topic: str = ""
    channel: str = "email"
    audience: str = ""
    from_name: str = ""
    from_address: str = ""
    reply_to: str = ""
    utm: dict[str, str] = {}
    cap: str = ""
    quiet_hours: str = ""
    where: str = ""


_TEXTS: Final = (
    "template",
    "subject",
    "preheader",
    "topic",
    "channel",
    "audience",
    "reply_to",
    "cap",
    "quiet_hours",
)

KEYS: Final = {
    "version": ("1", "Counted up by you when the campaign changes; part of the name of a send that is given none."),
    "slots": ("required", f"The names of the slots that the email has, 1 to {SLOTS_MAX}."),
    "template": ("none", ("The whole email: `content/<template>.liquid` or `.mjml.liquid`. Without one the campaign "
                 "answers requests for content, and can't be sent.")),
    "subject": ("empty", "The subject line, a Liquid text; it sees what the email sees."),
    "preheader": ("empty", "The line that mail programs show beside the subject, a Liquid text; the template shows it."),
    "from": ("`email.sender`", 'The sender: `"Shop <shop@shop.example>"`, or the bare address.'),
    "reply_to": ("`email.reply_to`", "The address that answers go to."),
    "topic": ("none", "What people unsubscribe from, one of `email.topics` if those are set. Without one the link ends all emails."),
    "audience": ("none", "Whom `penstock send` writes to, unless `--audience` names another."),
    "goal": ("none", ("What counts as success: the name of an event, or "
             f'`{{ event = "Order Completed", days = {GOAL_DAYS} }}`. `days` is the time after the exposure, {GOAL_DAYS} by default.')),
    "holdout_share": ("`decision.holdout_share`", ("Share of recipients, 0 to 1, who get the fallbacks for ever, so that "
                      "the effect of the rest can be measured.")),
    "uniform_share": (str(UNIFORM_SHARE_PPM / MILLION), "Share of decisions, 0 to 1, that draw uniformly, at least, in every slot."),
    "cap": ("`email.cap`", 'The class of emails it counts as, of `email.caps`; `"none"` counts as none.'),
    "quiet_hours": ("`email.quiet_hours`", 'When people are not written to, in their own time: `"21:00-08:00"`; `"none"` for always.'),
    "utm": ("none", "A table of tags added to links, beside `utm_source`, `utm_medium` and `utm_campaign`, or in their place."),
    "channel": ('`"email"`', "What a refusal of the topic is looked up under."),
}  # fmt: skip
"""Each key of a campaign's file: its default and what it means, for the reference."""

_KEYS: Final = frozenset(KEYS)


def parse_campaign(
    data: Mapping[str, Any],
    *,
    name: str,
    slots: Mapping[str, Slot],
    names: Names | None = None,
    where: str = "",
    lines: Mapping[tuple[str, ...], int] | None = None,
) -> Campaign:
    """Return a campaign of the data of its TOML file.

    Keys: `version`, `slots` (names), `holdout_share` and `uniform_share` (0 to 1), `goal` (an event's
    name, or a table of `event` and `days`), `template`, `subject`, `preheader`, `topic`, `channel`,
    `audience`, `cap`, `quiet_hours`, `from` ("Shop <shop@example.com>"), `reply_to`, `utm` (a table).

    Args:
        data: The file's content.
        name: The file's name without its ending.
        slots: The project's slots by name.
        names: What else the project defines; None checks no names.
        where: The file, for messages.
        lines: On which line of it each key stands; None if that is not known.

    Raises:
        DefinitionError: An unknown key (E158), a value of another type or a lacking key (E159), an
            unknown slot (E160), a share outside 0 to 1 (E161), an unknown topic (E162), template
            (E163), audience (E164), goal event (E165), or a wrong cap or
            quiet hours (E166).
    """
    places = Places(where, lines or {})
    reader = _Reader(data, f"campaign `{name}`", places)
    reader.only(_KEYS)
    from_name, from_address = _sender(reader)
    reply_to = reader.text("reply_to", "")
    if reply_to and not is_sender(reply_to):
        raise reader.wrong("reply_to", 'an address such as "help@shop.example"')
    campaign = Campaign(
        name=name,
        version=reader.whole("version", 1, least=1),
        slots=tuple(_slots(reader, slots)),
        holdout_share_ppm=reader.share("holdout_share", HOLDOUT_SHARE_PPM),
        uniform_share_ppm=reader.share("uniform_share", UNIFORM_SHARE_PPM),
        goal=_goal(reader),
        from_name=from_name,
        from_address=from_address,
        utm=reader.texts("utm"),
        where=where,
        **{key: reader.text(key, "email" if key == "channel" else "") for key in _TEXTS},
    )
    _check(campaign, names or Names(), places)
    return campaign


def _check(campaign: Campaign, names: Names, places: Places) -> None:
    """Check the names that a campaign uses; the errors are those of `parse_campaign`."""
    owner = f"campaign `{campaign.name}`"
    parse_quiet_hours(campaign.quiet_hours, places.of("quiet_hours"))
    if campaign.cap not in ("", NONE) and names.caps is not None and campaign.cap not in names.caps:
        raise DefinitionError("E166", f"{owner} names cap `{campaign.cap}`, which is not defined",
                              fix=f"add it to email.caps{nearest(campaign.cap, names.caps)}", where=places.of("cap"))  # fmt: skip
    if campaign.topic:
        check_topic(campaign.topic, names, owner=owner, where=places.of("topic"))
    uses = (
        ("E163", "template", campaign.template, names.templates, "write it in content/"),
        ("E164", "audience", campaign.audience, names.audiences, "define it in audiences.py"),
        (
            "E165",
            "goal event",
            campaign.goal.event if campaign.goal else "",
            names.events,
            "declare it in events.py",
        ),
    )
    for code, kind, used, known, fix in uses:
        if used and known is not None and used not in known:
            raise DefinitionError(code, f"{owner} names {kind} `{used}`, which does not exist",
                                  fix=fix + nearest(used, known), where=places.of(kind.partition(" ")[0]))  # fmt: skip


class _Reader:
    """Takes values out of a file's data by key and type, with errors that name the key."""

    def __init__(self, data: Mapping[str, Any], owner: str, places: Places) -> None:
        self.data = data
        self.owner = owner
        self.places = places

    def wrong(self, key: str, expected: str) -> DefinitionError:
        return DefinitionError("E159", f"{self.owner}: `{key}` is not {expected}",
                               fix=f"write {key} as {expected}", where=self.places.of(*key.split(".")))  # fmt: skip

    def only(self, known: frozenset[str], prefix: str = "") -> None:
        for key in self.data:
            if key not in known:
                guess = nearest(key, known) or f"; known are {', '.join(sorted(known))}"
                raise DefinitionError("E158", f"{self.owner} has no setting `{prefix}{key}`",
                                      fix=f"remove it{guess}", where=self.places.of(*f"{prefix}{key}".split(".")))  # fmt: skip

    def text(self, key: str, default: str) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def whole(self, key: str, default: int, *, least: int) -> int:
        value = self.data.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(key, f"a whole number from {least}")
        return value

    def share(self, key: str, default_ppm: int) -> int:
        value = self.data.get(key)
        return (
            default_ppm
            if value is None
            else share_ppm(value, f"{self.owner}: `{key}`", self.places.of(key))
        )

    def texts(self, key: str) -> dict[str, str]:
        table = as_mapping(self.data.get(key, {}))
        if table is None or not all(isinstance(one, str) for one in table.values()):
            raise self.wrong(key, "a table of texts")
        return dict(table)


def share_ppm(value: object, what: str, where: str = "") -> int:
    """Return a share in 0 to 1 as parts per million.

    Raises:
        DefinitionError: It is not a number in 0 to 1 (E161).
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise DefinitionError("E161", f"{what} is not a share from 0 to 1",
                              fix="write 0.05 for 5 %, and 0 to turn it off", where=where)  # fmt: skip
    return round(value * MILLION)


def _slots(reader: _Reader, slots: Mapping[str, Slot]) -> list[Slot]:
    asked = as_sequence(reader.data.get("slots"))
    if asked is None or not all(isinstance(name, str) for name in asked):
        raise reader.wrong("slots", "a list of names of slots")
    if not 1 <= len(asked) <= SLOTS_MAX or len(set(asked)) != len(asked):
        raise reader.wrong("slots", f"a list of 1 to {SLOTS_MAX} different names")
    for name in asked:
        if name not in slots:
            raise DefinitionError("E160", f"{reader.owner} names slot `{name}`, which is not defined",
                                  fix=f"define it in slots.py{nearest(name, frozenset(slots))}",
                                  where=reader.places.of("slots"))  # fmt: skip
    return [slots[name] for name in asked]


def _goal(reader: _Reader) -> Goal | None:
    value = reader.data.get("goal")
    if value is None:
        return None
    if isinstance(value, str):
        return Goal(value)
    table = as_mapping(value)
    if table is None:
        raise reader.wrong("goal", "the name of an event, or a table of event and days")
    inner = _Reader(table, f"{reader.owner}, goal", reader.places)
    inner.only(frozenset(("event", "days")), "goal.")
    event = inner.text("event", "")
    if not event:
        raise reader.wrong("goal.event", "the name of an event")
    return Goal(event, inner.whole("days", GOAL_DAYS, least=1))


def _sender(reader: _Reader) -> tuple[str, str]:
    """Return the name and the address of `from`, written `Shop <shop@example.com>` or bare."""
    value = reader.text("from", "").strip()
    if value and not is_sender(value):
        raise reader.wrong("from", 'a sender such as "Shop <shop@example.com>"')
    return mailbox_of(value)
