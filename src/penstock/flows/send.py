"""A campaign goes out: each person of an audience gets one email, personalised at the last moment."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from email.message import EmailMessage
from functools import partial
from typing import Any, Final, NamedTuple

from penstock.core.consent.suppression import may_send
from penstock.core.decision.audience import Audience, matches
from penstock.core.decision.campaign import Campaign
from penstock.core.decision.mailbox import is_sender
from penstock.core.decision.record import Decision, decision_id_of
from penstock.core.errors import DamagedLeaf, DefinitionError, PenstockError, Unavailable
from penstock.core.ids import LeafId
from penstock.core.profile import Profile
from penstock.flows.compose_email import compose_email, message_id_of
from penstock.flows.pacing import Pacing
from penstock.flows.render import Links, Rendered, render_email
from penstock.flows.serve import Outcome, Serving, Who, refused_topics, used_purposes
from penstock.flows.track import email_event
from penstock.ports.appender import Appender
from penstock.ports.decisions import DecisionKey, SendState
from penstock.ports.esp import Esp
from penstock.ports.store import Store

SCAN_LEAVES = 500
SENT = "Email Sent"
NOT_SEEN = "E406"
"""The detail of a hand-over that never reached the ESP, which a later run repeats."""
CAPPED = "cap"
"""The detail of an email that a frequency cap held back, which a later run may send."""
EVER_READY = Pacing()


class Sender(NamedTuple):
    """What every email of a campaign goes out with."""

    address: str
    """`Shop <news@shop.example>` or an address alone."""
    domain: str
    """Right of the `@` in Message-IDs."""
    reply_to: str = ""
    seeds: tuple[str, ...] = ()
    """Addresses that get a copy of every campaign, without a decision, holdout or exposure."""


class Progress(NamedTuple):
    """How far a send has come: people seen, and emails by outcome."""

    seen: int
    outcomes: dict[str, int]
    """`accepted`, `in_doubt`, `already`, or `refused:`, `skipped:` or `deferred:` and a reason.

    What is deferred goes out when the same send is started again, once its time has come.
    """


class Sum(NamedTuple):
    """A send's outcomes in the words of whoever started it."""

    sent: int
    already: int
    """Sent by an earlier run of the same send."""
    in_doubt: int
    kept_back: dict[str, dict[str, int]]
    """`skipped`, `deferred` and `refused`, each by reason."""
    own_faults: int
    """Emails that did not go out for a fault of ours, which is to be mended and sent again."""

    @property
    def nothing_went_out(self) -> bool:
        """Whether nobody has this email, of this run or an earlier one."""
        return self.sent + self.already + self.in_doubt == 0


def sum_up(outcomes: Mapping[str, int]) -> Sum:
    """Return the outcomes of a send by what they mean."""
    kept_back: dict[str, dict[str, int]] = {"skipped": {}, "deferred": {}, "refused": {}}
    own_faults = 0
    for name, number in sorted(outcomes.items()):
        what, _, reason = name.partition(":")
        if what in kept_back:
            kept_back[what][reason] = number
            own_faults += number if _OWN_FAULT.fullmatch(reason) else 0
    return Sum(
        outcomes.get("accepted", 0), outcomes.get("already", 0), outcomes.get("in_doubt", 0),
        kept_back, own_faults,
    )  # fmt: skip


_OWN_FAULT: Final = re.compile(r"E\d{3}|unavailable_.*|fault_.*|timeout|undecided|53[0458]")
"""Reasons that lie with us and not with who was written to: an error, or a log-in that is refused."""


class Member(NamedTuple):
    """One person of an audience: their address's leaf, and their profile now."""

    recipient: LeafId
    profile: Profile


class Campaigning:
    """Scans audiences and sends campaigns. One a project; each email is decided when it is sent.

    Args:
        serving: Decides and renders.
        store: Scanned for people; everything folded was written before.
        epoch: The live definitions epoch.
        appender: Takes the `Email Sent` events.
        esp: Carries the emails; called on threads.
        links: Makes links.
        sender: Who the emails come from.
        text_of_html: Makes a text part of HTML.
        make_leaf: Makes the leaf of a seed's address.
        connections: Emails handed over side by side.
        pacing: How often and when people are written to.
    """

    def __init__(  # noqa: PLR0913 - the one place where sending's parts meet
        self, *, serving: Serving, store: Store, epoch: int, appender: Appender, esp: Callable[[], Esp],
        links: Links, sender: Sender, text_of_html: Callable[[str], str],
        make_leaf: Callable[[str, str], LeafId], connections: int = 4, pacing: Pacing = EVER_READY,
    ) -> None:  # fmt: skip
        self.serving = serving
        self.store = store
        self.epoch = epoch
        self.appender = appender
        self.esp = esp
        self.links = links
        self.sender = sender
        self.text_of_html = text_of_html
        self.make_leaf = make_leaf
        self.connections = connections
        self.pacing = pacing

    async def members(
        self, audience: Audience, campaign: Campaign
    ) -> AsyncIterator[tuple[Member | None, str]]:
        """Yield each person with an address once, with the reason if they are not in the audience.

        Every person with a verified address has its leaf, and of several addresses the winning one
        speaks for them; a scan visits each leaf at least once, and the decision key makes a send
        once per recipient. Whoever has a leaf that does not read back is not in it, for that reason.
        """
        after: LeafId | None = None
        damaged: dict[bytes, str] = {}
        told: set[bytes] = set()
        while page := await asyncio.to_thread(self.store.ids, self.epoch, after, SCAN_LEAVES):
            for leaf in page:
                try:
                    found = await self._member(leaf, audience, campaign)
                except DamagedLeaf as error:
                    # Of the leaf itself it is not known whether it is an address: see below.
                    damaged[error.leaf] = error.code
                    if error.leaf == leaf:
                        continue
                    told.add(error.leaf)
                    found = None, error.code
                if found is not None:
                    yield found
            after = page[-1]
        # A person's device that is damaged was told of at their address; what is left may be an address.
        for leaf, code in damaged.items():
            if leaf not in told:
                yield None, code

    async def _member(
        self, leaf: LeafId, audience: Audience, campaign: Campaign
    ) -> tuple[Member | None, str] | None:
        read = await self.serving.profiles.read([leaf])
        if read.leaves[0] is None or read.leaves[0].id_type != "email":
            return None
        profile, _ = await self.serving.profile(Who(leaf, "email"))
        if profile.email_leaf != leaf:
            return None
        register = self.serving.suppressions.get(_leaves(leaf, profile))
        verdict = matches(
            audience, profile, refused_topics=refused_topics(register, campaign.channel)
        )
        return (Member(leaf, profile) if verdict.matches else None), verdict.reason

    async def foresee(
        self, audience: Audience, campaign: Campaign, send: str
    ) -> AsyncIterator[tuple[Member | None, str]]:
        """Yield what a send would do with each person if it began now; nothing is sent or reserved.

        The word is `member`, or as in `Progress.outcomes`.
        """
        serving = self.serving
        async for member, reason in self.members(audience, campaign):
            if member is None:
                yield None, f"skipped:{reason}"
                continue
            now = serving.clock.now_ms()
            token = decision_id_of(serving.rules.tenant, member.recipient, campaign.name, send)
            if self.pacing.quiet_until_ms(campaign, member.profile, now) is not None:
                yield None, "deferred:quiet_hours"
            elif not await asyncio.to_thread(
                self.pacing.has_room, serving.decisions, campaign, member.recipient, token, now
            ):
                yield None, f"deferred:{CAPPED}"
            else:
                yield member, "member"

    async def send(
        self, campaign: Campaign, audience: Audience, send: str, *, retry_in_doubt: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Progress:  # fmt: skip
        """Send a campaign to an audience; a send that was interrupted goes on where it was.

        Args:
            campaign: What to send.
            audience: Whom to.
            send: The send's id: the same id never mails a recipient twice.
            retry_in_doubt: Hand over again what was started and never confirmed; it may be a second
                copy, so it is the operator's word.
            progress: Told after every email.

        Raises:
            DefinitionError: The campaign has no template (E182), or nothing can come from its sender
                (E142).
        """
        if not campaign.template:
            raise DefinitionError("E182", f"campaign `{campaign.name}` has no template", where=campaign.where,
                                  fix='name one: template = "email"')  # fmt: skip
        if not is_sender(_from(campaign, self.sender)):
            # What every email lacks is told once, before the first, and not as so many skipped.
            raise DefinitionError("E142", f"no email can come from the sender of campaign `{campaign.name}`",
                                  where=campaign.where or "email.sender",
                                  fix="correct `from` in the campaign, or `email.sender` in penstock.toml")  # fmt: skip
        seen = 0
        outcomes: dict[str, int] = {}
        if not await asyncio.to_thread(self.serving.decisions.sends, campaign.name, send):
            await self._send_seeds(campaign, outcomes)
        queue: asyncio.Queue[Member | None] = asyncio.Queue(self.connections * 4)

        def note(outcome: str) -> None:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if progress is not None:
                progress(Progress(seen, dict(outcomes)))

        async def work() -> None:
            esp = await asyncio.to_thread(self.esp)
            try:
                while (member := await queue.get()) is not None:
                    one = self._send_one(
                        esp, campaign, audience, member, send, retry_in_doubt=retry_in_doubt
                    )
                    note(await _to_its_end(one))
            finally:
                await asyncio.to_thread(esp.close)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.connections):
                    group.create_task(work())
                async for member, reason in self.members(audience, campaign):
                    seen += 1
                    if member is None:
                        note(f"skipped:{reason}")
                    else:
                        await queue.put(member)
                for _ in range(self.connections):
                    await queue.put(None)
        except BaseExceptionGroup as failed:
            raise _reason(failed) from failed
        for outcome, number in outcomes.items():
            self.serving.metrics.count(
                "penstock_sends_total", number, state=outcome.partition(":")[0]
            )
        return Progress(seen, outcomes)

    async def _send_seeds(self, campaign: Campaign, outcomes: dict[str, int]) -> None:
        """Copy a campaign to the seeds, once a send; a seed that fails costs nobody else's email."""
        if not self.sender.seeds:
            return
        esp = await asyncio.to_thread(self.esp)
        try:
            for address in self.sender.seeds:
                try:
                    await self._send_seed(esp, campaign, address)
                except PenstockError:
                    outcomes["seed_failed"] = outcomes.get("seed_failed", 0) + 1
        finally:
            await asyncio.to_thread(esp.close)

    async def _send_seed(self, esp: Esp, campaign: Campaign, address: str) -> None:
        leaf = self.make_leaf("email", address.strip().lower())
        outcome = await self.serving.decide(campaign.name, Who(leaf, "email"), preview=True)
        rendered = self._render(campaign, outcome, leaf, track=False)
        decision_id = outcome.answer.decision_id or "0" * 32
        message = self._compose(campaign, rendered, address, leaf, decision_id)
        sender = _address(_from(campaign, self.sender))
        await asyncio.to_thread(esp.send, message, sender=sender, recipient=address)

    async def _send_one(
        self, esp: Esp, campaign: Campaign, audience: Audience, member: Member, send: str, *,
        retry_in_doubt: bool,
    ) -> str:  # fmt: skip
        serving = self.serving
        # Before it is decided: in the morning it knows what happened in the night.
        if self.pacing.quiet_until_ms(campaign, member.profile, serving.clock.now_ms()) is not None:
            return "deferred:quiet_hours"
        key = DecisionKey(serving.rules.tenant, member.recipient, campaign.name, send)
        outcome = await serving.decide(campaign.name, Who(member.recipient, "email"), send)
        if outcome.decision is None or outcome.profile is None:
            return f"skipped:{outcome.answer.reason}"
        # At this very instant: what was withdrawn while the scan ran is honoured, and so is what was
        # withdrawn since the decision was made, which an earlier run may have done.
        needs = used_purposes(campaign, outcome.decision) | ({audience.purpose} - {""})
        if not needs <= outcome.profile.permitted:
            return "skipped:consent"
        register = await asyncio.to_thread(
            serving.suppressions.get, _leaves(member.recipient, outcome.profile)
        )
        allowed, reason = may_send(register, campaign.channel, campaign.topic)
        if not allowed:
            return f"skipped:{reason}"
        address = member.profile.email
        if address is None:
            return "skipped:no_address"
        try:
            rendered = self._render(campaign, outcome, member.recipient)
            message = self._compose(
                campaign, rendered, address, member.recipient, outcome.decision.decision_id
            )
        except PenstockError as error:
            return f"skipped:{error.code}"
        now = serving.clock.now_ms()
        message_id = message_id_of(outcome.decision.decision_id, self.sender.domain)
        standing = await asyncio.to_thread(serving.decisions.start_send, key, message_id, now)
        if standing is not None:
            again = retry_in_doubt if standing.state == "started" else _not_taken(standing)
            if not again:
                return "in_doubt" if standing.state == "started" else _before(standing)
            other = await asyncio.to_thread(
                partial(serving.decisions.start_send, key, message_id, now, again_from=standing)
            )
            if other is not None:
                return "already"  # another run of this send repeats it at this very moment
        return await self._hand_over(esp, campaign, key, outcome.decision, message, address, now)

    async def _hand_over(
        self, esp: Esp, campaign: Campaign, key: DecisionKey, decision: Decision, message: EmailMessage,
        address: str, now: int,
    ) -> str:  # fmt: skip
        """Hand over an email that is on record as started, and note what became of it."""
        serving, pacing = self.serving, self.pacing
        token, recipient = decision.decision_id, LeafId(key.recipient)
        if not await asyncio.to_thread(
            pacing.reserve, serving.decisions, campaign, recipient, token, now
        ):
            skipped = SendState("skipped", now, CAPPED)
            await asyncio.to_thread(serving.decisions.finish_send, key, skipped)
            return "deferred:cap"
        state = await self._handed(esp, campaign, key, decision, message, address, now)
        settled = state.partition(":")[0]
        await asyncio.to_thread(pacing.settle, serving.decisions, campaign, token, settled, now)
        return state

    async def _handed(
        self, esp: Esp, campaign: Campaign, key: DecisionKey, decision: Decision, message: EmailMessage,
        address: str, now: int,
    ) -> str:  # fmt: skip
        serving = self.serving
        try:
            handed = await asyncio.to_thread(
                esp.send, message, sender=_address(_from(campaign, self.sender)), recipient=address
            )
        except Unavailable as error:
            # Not seen by the ESP: a later run of the same send hands it over.
            await asyncio.to_thread(
                serving.decisions.finish_send, key, SendState("refused", now, NOT_SEEN)
            )
            return f"refused:{error.code}"
        except Exception:  # noqa: BLE001 - one email that is in doubt must not stop the others
            return "in_doubt"
        if handed.state == "in_doubt":
            return "in_doubt"
        if handed.state == "accepted":
            event = email_event(
                decision, SENT, at_ms=now, message_id=f"{decision.decision_id}#sent"
            )
            # Before the outcome is noted: a kill in between leaves the email in doubt, not its event
            # lost. If the log is away the email was sent all the same, and must not go out again.
            with suppress(Unavailable):
                await self.appender.append([event], urgent=True)
                serving.metrics.count("penstock_events_accepted_total")
        state = SendState(handed.state, now, handed.detail)
        await asyncio.to_thread(serving.decisions.finish_send, key, state)
        return handed.state if handed.state == "accepted" else _before(state)

    def _compose(
        self,
        campaign: Campaign,
        rendered: Rendered,
        address: str,
        recipient: LeafId,
        decision_id: str,
    ) -> EmailMessage:
        return compose_email(
            sender=_from(campaign, self.sender), recipient=address, subject=rendered.subject,
            html=rendered.html, text=rendered.text,
            message_id=message_id_of(decision_id, self.sender.domain),
            list_unsubscribe_url=self.links.unsubscribe(recipient, campaign.topic or "*"),
            headers=_reply_to(campaign, self.sender),
        )  # fmt: skip

    def _render(
        self, campaign: Campaign, outcome: Outcome, recipient: LeafId, *, track: bool = True
    ) -> Rendered:
        rendered = render_email(
            self.serving.renderer, campaign, outcome.answer, outcome.profile, links=self.links,
            recipient=recipient, text_of_html=self.text_of_html, track=track,
        )  # fmt: skip
        if rendered.size.verdict == "refuse":
            raise DefinitionError("E183", f"campaign `{campaign.name}` renders to {rendered.size.bytes} bytes, "
                                  "which mail clients clip", where=campaign.where,
                                  fix="shorten the template to less than 100 kB")  # fmt: skip
        return rendered


async def _to_its_end(one: Coroutine[Any, Any, str]) -> str:
    """Return what became of an email, which is finished even if the send is stopped meanwhile.

    Cut off between the hand-over and the note of it, an email that arrived would be in doubt.
    """
    task = asyncio.create_task(one)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _leaves(recipient: LeafId, profile: Profile) -> list[LeafId]:
    return list(dict.fromkeys([recipient, *profile.leaves]))


def _before(standing: SendState) -> str:
    """Return the outcome of an email that an earlier run settled: it has gone out, or was refused."""
    return f"refused:{standing.detail}" if standing.state == "refused" else "already"


def _not_taken(standing: SendState) -> bool:
    """Return whether an email was left for now: not seen by the ESP, refused for the moment, or capped.

    Source: RFC 5321 §4.2.1, a 4yz answer asks to try again later.
    """
    code = standing.detail
    if standing.state == "skipped":
        return code == CAPPED
    transient = len(code) == 3 and code.isdigit() and code.startswith("4")
    return standing.state == "refused" and (code == NOT_SEEN or transient)


def _reason(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error an operator needs: several connections mostly fail for one reason."""
    known = failed.subgroup(PenstockError) or failed
    one: BaseException = known
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    return one


def _from(campaign: Campaign, sender: Sender) -> str:
    if not campaign.from_address:
        return sender.address
    return (
        f"{campaign.from_name} <{campaign.from_address}>"
        if campaign.from_name
        else campaign.from_address
    )


def _address(mailbox: str) -> str:
    return mailbox.rpartition("<")[2].rstrip(">")


def _reply_to(campaign: Campaign, sender: Sender) -> dict[str, str]:
    reply_to = campaign.reply_to or sender.reply_to
    return {"Reply-To": reply_to} if reply_to else {}
