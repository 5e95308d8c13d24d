"""Adapters with one bug each, as people write them. The suites must find every one.

Not collected by itself: `test_planted_bugs.py` runs this file and reads what failed.
"""

from threading import Event

from msgspec import structs

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.record import NO_VERSION, LogRecord
from penstock.ports.decisions import Decided, SendState
from penstock.ports.log import Appended
from penstock.ports.store import StoredLeaf, Verdict
from penstock.testing.conformance.decisions import DecisionsConformance, DurableDecisionsConformance
from penstock.testing.conformance.keys import KeysConformance
from penstock.testing.conformance.log import DurableLogConformance, SoleLogConformance
from penstock.testing.conformance.metrics import MetricsConformance
from penstock.testing.conformance.store import DurableStoreConformance, StoreConformance
from penstock.testing.conformance.suppressions import SuppressionsConformance

# ------------------------------------------------------------------------------------------- stores


class _RefusesOlder(MemoryStore):
    """Compares versions only: a higher version from a stale base overwrites newer work."""

    def _write_one(self, held, write):
        stored = held.get(write.leaf)
        if stored is not None and stored.version >= write.new:
            return Verdict.ALREADY
        held[write.leaf] = StoredLeaf(write.new, write.parts)
        return Verdict.ACCEPTED


class _TakesAnyBaseForAnAbsentLeaf(MemoryStore):
    """An upsert: what is not there is inserted, wherever the writer thought that it stood."""

    def _write_one(self, held, write):
        if write.leaf not in held:
            held[write.leaf] = StoredLeaf(write.new, write.parts)
            return Verdict.ACCEPTED
        return super()._write_one(held, write)


class _RefusesRepetition(MemoryStore):
    """Takes a late repetition for a stale base: a worker that retries would never get on."""

    def _write_one(self, held, write):
        verdict = super()._write_one(held, write)
        return Verdict.REFUSED if verdict is Verdict.ALREADY else verdict


class _ComparesOffsetsOnly(MemoryStore):
    """Forgets the generation: offset 0 of the next one looks old."""

    def _write_one(self, held, write):
        stored = held.get(write.leaf)
        version = NO_VERSION if stored is None else stored.version
        if version != write.base and version.offset >= write.new.offset:
            return Verdict.ALREADY
        return super()._write_one(held, write)


class _AppliesDespiteRefusal(MemoryStore):
    """Notes the applied offset although a write was refused: its records are lost."""

    def write(self, epoch, writes, *, partition, applied):
        verdicts = super().write(epoch, writes, partition=partition, applied=applied)
        super().write(epoch, [], partition=partition, applied=applied)
        return verdicts


class _AppliedGoesBack(MemoryStore):
    """Sets the applied offset to whatever is said last."""

    def write(self, epoch, writes, *, partition, applied):
        verdicts = super().write(epoch, writes, partition=partition, applied=applied)
        if Verdict.REFUSED not in verdicts:
            self._applied[(epoch, partition)] = applied
        return verdicts


class _RefusesAllForOne(MemoryStore):
    """Says ACCEPTED of writes that it then took back with the refused one."""

    def write(self, epoch, writes, *, partition, applied):
        before = dict(self._leaves.get(epoch, {}))
        verdicts = super().write(epoch, writes, partition=partition, applied=applied)
        if Verdict.REFUSED in verdicts:
            self._leaves[epoch] = before
        return verdicts


class _SharesEpochs(MemoryStore):
    """Keeps the leaves of all definitions together."""

    def read(self, epoch, leaves):
        return super().read(0, leaves)

    def write(self, epoch, writes, *, partition, applied):
        return super().write(0, writes, partition=partition, applied=applied)


class _ScansFromTheCursor(MemoryStore):
    """Starts a page at the last leaf of the one before: it is visited twice, or for ever."""

    def scan(self, epoch, after, limit):
        leaves = sorted(self._leaves.get(epoch, {}).items())
        return [item for item in leaves if after is None or item[0] >= after][:limit]


class _ReadsInItsOwnOrder(MemoryStore):
    """Returns leaves as they come from the disk, not as they were asked."""

    def read(self, epoch, leaves):
        return super().read(epoch, sorted(leaves))


class _NotesTheOffsetNowAndThen(SqliteStore):
    """Commits the applied offset in a transaction of its own, now and then: a kill tears the two."""

    def write(self, epoch, writes, *, partition, applied):
        verdicts = super().write(epoch, writes, partition=partition, applied=NO_VERSION)
        if applied.offset % 64 == 0:
            super().write(epoch, [], partition=partition, applied=applied)
        return verdicts


def _suite_of(store):
    class Suite(StoreConformance):
        def make(self, folder):
            return store()

    return Suite


PlantedRefusesOlder = _suite_of(_RefusesOlder)
PlantedTakesAnyBaseForAnAbsentLeaf = _suite_of(_TakesAnyBaseForAnAbsentLeaf)
PlantedRefusesRepetition = _suite_of(_RefusesRepetition)
PlantedComparesOffsetsOnly = _suite_of(_ComparesOffsetsOnly)
PlantedAppliesDespiteRefusal = _suite_of(_AppliesDespiteRefusal)
PlantedAppliedGoesBack = _suite_of(_AppliedGoesBack)
PlantedRefusesAllForOne = _suite_of(_RefusesAllForOne)
PlantedSharesEpochs = _suite_of(_SharesEpochs)
PlantedScansFromTheCursor = _suite_of(_ScansFromTheCursor)
PlantedReadsInItsOwnOrder = _suite_of(_ReadsInItsOwnOrder)


class PlantedNotesTheOffsetNowAndThen(DurableStoreConformance):
    opened_by = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("planted", {__file__!r})
planted = importlib.util.module_from_spec(spec)
spec.loader.exec_module(planted)
store = planted._NotesTheOffsetNowAndThen(folder / "store.db")
"""

    def make(self, folder):
        return _NotesTheOffsetNowAndThen(folder / "store.db")


# --------------------------------------------------------------------------------------------- logs


class _CountsFromOne(MemoryLog):
    """Names the first record 1."""

    def append(self, partition, values, letters=()):
        appended = super().append(partition, values, letters)
        return Appended(appended.first_offset + 1, appended.logged_at_ms)


class _LeavesGaps(MemoryLog):
    """Gives an offset to a batch of letters alone."""

    def append(self, partition, values, letters=()):
        appended = super().append(partition, values, letters)
        if not values:
            records = self._records[partition]
            records.append(LogRecord(len(records), appended.logged_at_ms, b""))
        return appended


class _FollowsTheClockBack(MemoryLog):
    """Stamps whatever the clock says."""

    def append(self, partition, values, letters=()):
        appended = super().append(partition, values, letters)
        now_ms = self._clock.now_ms()
        records = self._records[partition]
        for i in range(appended.first_offset, len(records)):
            records[i] = records[i]._replace(logged_at_ms=now_ms)
        return Appended(appended.first_offset, now_ms)


class _MixesPartitions(MemoryLog):
    """One sequence of offsets for all partitions."""

    def append(self, partition, values, letters=()):
        return super().append(0, values, letters)


class _ReplacesLetters(MemoryLog):
    """The last letter of an id wins."""

    def append(self, partition, values, letters=()):
        appended = super().append(partition, values, letters)
        self._letters.update({letter.letter_id: letter for letter in letters})
        return appended


class _ForgetsReplays(MemoryLog):
    """Lists letters that were replayed again and again."""

    def mark_replayed(self, letter_ids, at_ms):
        for letter_id in letter_ids:
            if letter_id in self._letters:
                letter = self._letters[letter_id]
                self._letters[letter_id] = structs.replace(letter, replayed_at_ms=0)


class _SkipsOverALimit(MemoryLog):
    """Loses the last record of a full read."""

    def read(self, partition, offset, limit):
        records = super().read(partition, offset, limit)
        return [r for r in records if (r.offset + 1) % 7 or len(records) < limit]


class _Bytes(MemoryLog):
    """Takes records for text."""

    def append(self, partition, values, letters=()):
        return super().append(partition, [value.rstrip(b"\x00") for value in values], letters)


class _AcksBeforeTheCommit(SqliteLog):
    """Says yes to a batch that is still in memory."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._waiting = []

    def append(self, partition, values, letters=()):
        self._waiting.append((partition, values, letters))
        if len(self._waiting) < 64:
            return Appended(0, 0)
        appended = [super(_AcksBeforeTheCommit, self).append(*batch) for batch in self._waiting]
        self._waiting = []
        return appended[-1]


class _LettersLater(SqliteLog):
    """Keeps the letters of many batches in a transaction of their own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._later = []

    def append(self, partition, values, letters=()):
        appended = super().append(partition, values)
        self._later += letters
        if len(self._later) >= 64:
            super().append(partition, [], self._later)
            self._later = []
        return appended


def _log_suite_of(log):
    class Suite(SoleLogConformance):
        def make(self, folder, clock, *, partitions=1):
            return log(clock, partitions=partitions)

    return Suite


def _durable_log_suite_of(log):
    class Suite(DurableLogConformance):
        opened_by = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("planted", {__file__!r})
planted = importlib.util.module_from_spec(spec)
spec.loader.exec_module(planted)
log = planted.{log.__name__}(folder / "log.db", clock)
"""

        def make(self, folder, clock, *, partitions=1):
            return log(folder / "log.db", clock, partitions=partitions)

    return Suite


PlantedCountsFromOne = _log_suite_of(_CountsFromOne)
PlantedLeavesGaps = _log_suite_of(_LeavesGaps)
PlantedFollowsTheClockBack = _log_suite_of(_FollowsTheClockBack)
PlantedMixesPartitions = _log_suite_of(_MixesPartitions)
PlantedReplacesLetters = _log_suite_of(_ReplacesLetters)
PlantedForgetsReplays = _log_suite_of(_ForgetsReplays)
PlantedSkipsOverALimit = _log_suite_of(_SkipsOverALimit)
PlantedBytes = _log_suite_of(_Bytes)
PlantedAcksBeforeTheCommit = _durable_log_suite_of(_AcksBeforeTheCommit)
PlantedLettersLater = _durable_log_suite_of(_LettersLater)


# ------------------------------------------------------------------------------------ suppressions


class _LastWriteWins(MemorySuppressions):
    """Takes the order of arrival for the order of events."""

    def put(self, entries):
        for key, entry in entries:
            self._entries.setdefault(key.leaf, {})[key] = entry


class _GrantWinsTies(MemorySuppressions):
    """Of a grant and a denial at one instant the grant wins."""

    def put(self, entries):
        for key, entry in entries:
            held = self._entries.setdefault(key.leaf, {})
            rank = lambda one: (one.at_ms, not one.denied, one.event_id, one.reason)
            held[key] = max(held.get(key, entry), entry, key=rank)


class _SignedIds(MemorySuppressions):
    """Compares event ids as SQLite's signed integers would."""

    def _rank(self, one):
        signed = one.event_id - (1 << 64) if one.event_id >> 63 else one.event_id
        return one.at_ms, one.denied, signed, one.reason

    def put(self, entries):
        for key, entry in entries:
            held = self._entries.setdefault(key.leaf, {})
            held[key] = max(held.get(key, entry), entry, key=self._rank)


class _ReplacesTheLeaf(MemorySuppressions):
    """An entry of a leaf replaces the others of it."""

    def put(self, entries):
        for key, entry in entries:
            self._entries[key.leaf] = {}
            super().put([(key, entry)])


def _suppressions_suite_of(register):
    class Suite(SuppressionsConformance):
        def make(self, folder):
            return register()

    return Suite


PlantedLastWriteWins = _suppressions_suite_of(_LastWriteWins)
PlantedGrantWinsTies = _suppressions_suite_of(_GrantWinsTies)
PlantedSignedIds = _suppressions_suite_of(_SignedIds)
PlantedReplacesTheLeaf = _suppressions_suite_of(_ReplacesTheLeaf)


# --------------------------------------------------------------------------------------- decisions


class _LastDecisionWins(MemoryDecisions):
    """Decides again when asked again."""

    def _put_one(self, key, record):
        self._records.pop(key, None)
        return super()._put_one(key, record)


class _LooksThenPuts(MemoryDecisions):
    """Looks in one round trip and puts in another; two that race both win."""

    def put_if_absent(self, items):
        decided = []
        for key, record in items:
            standing = self.get([key])[0]
            Event().wait(0.001)  # the other round trip
            if standing is None:
                self._records.pop(key, None)
                decided += super().put_if_absent([(key, record)])
            else:
                decided.append(Decided(standing, created=False))
        return decided


class _EmptiesTheOutbox(MemoryDecisions):
    """Forgets what comes before what is done, too."""

    def outbox_done(self, sequences):
        super().outbox_done(range(max(sequences) + 1))


class _ReusesSequences(MemoryDecisions):
    """Takes the greatest sequence that stands, plus one."""

    def _put_one(self, key, record):
        self._next_sequence = max(self._outbox, default=0) + 1
        return super()._put_one(key, record)


class _KeyWithoutBounds(MemoryDecisions):
    """Joins the elements of a key without saying where one ends."""

    def put_if_absent(self, items):
        joined = [
            (key._replace(campaign=key.campaign + key.send, send=""), record)
            for key, record in items
        ]
        return super().put_if_absent(joined)

    def get(self, keys):
        return super().get(
            [key._replace(campaign=key.campaign + key.send, send="") for key in keys]
        )


class _CountsTokensTwice(MemoryDecisions):
    """A retry takes a second unit of the cap."""

    _calls = 0

    def reserve(self, recipient, cap, *, limit, token, until_ms, now_ms):
        self._calls += 1
        return super().reserve(recipient, cap, limit=limit, token=f"{token} {self._calls}",
                               until_ms=until_ms, now_ms=now_ms)  # fmt: skip


class _OneOverTheLimit(MemoryDecisions):
    """Stops after the limit, not at it."""

    def reserve(self, recipient, cap, *, limit, token, until_ms, now_ms):
        return super().reserve(recipient, cap, limit=limit + 1, token=token, until_ms=until_ms,
                               now_ms=now_ms)  # fmt: skip


class _NeverLapses(MemoryDecisions):
    """Keeps a reservation whose email was never sent."""

    def reserve(self, recipient, cap, *, limit, token, until_ms, now_ms):
        return super().reserve(
            recipient, cap, limit=limit, token=token, until_ms=until_ms, now_ms=0
        )


class _CountsThenReserves(MemoryDecisions):
    """Counts in one round trip and takes in another."""

    def reserve(self, recipient, cap, *, limit, token, until_ms, now_ms):
        held = self._reservations.setdefault((recipient, cap), {})
        count = sum(1 for until in dict(held).values() if until > now_ms)
        Event().wait(0.001)  # the other round trip
        if held.get(token, now_ms) > now_ms:
            return True
        if count >= limit:
            return False
        held[token] = until_ms
        return True


class _StartsAgain(MemoryDecisions):
    """Hands an email over again when it is in doubt."""

    def start_send(self, key, message_id, now_ms):
        standing = super().start_send(key, message_id, now_ms)
        return None if standing is None or standing.state == "started" else standing


class _ForgetsTheMessage(MemoryDecisions):
    """Does not keep which message was started."""

    def start_send(self, key, message_id, now_ms):
        standing = self._sends.get(key)
        if standing is None:
            self._sends[key] = SendState("started", now_ms, "")
        return standing


def _decisions_suite_of(decisions):
    class Suite(DecisionsConformance):
        def make(self, folder):
            return decisions()

    return Suite


PlantedLastDecisionWins = _decisions_suite_of(_LastDecisionWins)
PlantedLooksThenPuts = _decisions_suite_of(_LooksThenPuts)
PlantedEmptiesTheOutbox = _decisions_suite_of(_EmptiesTheOutbox)
PlantedReusesSequences = _decisions_suite_of(_ReusesSequences)
PlantedKeyWithoutBounds = _decisions_suite_of(_KeyWithoutBounds)
PlantedCountsTokensTwice = _decisions_suite_of(_CountsTokensTwice)
PlantedOneOverTheLimit = _decisions_suite_of(_OneOverTheLimit)
PlantedNeverLapses = _decisions_suite_of(_NeverLapses)
PlantedCountsThenReserves = _decisions_suite_of(_CountsThenReserves)
PlantedStartsAgain = _decisions_suite_of(_StartsAgain)
PlantedForgetsTheMessage = _decisions_suite_of(_ForgetsTheMessage)


class PlantedMemoryForADurableStore(DurableDecisionsConformance):
    """Calls itself durable and is gone with the process."""

    def make(self, folder):
        return MemoryDecisions()


# -------------------------------------------------------------------------------- keys and metrics


class _OverwritesKeys(MemoryKeys):
    """The last secret wins: every leaf id changes."""

    def put_if_absent(self, name, secret):
        self._keys.pop(name, None)
        return super().put_if_absent(name, secret)


class _ReturnsTheLosersKey(MemoryKeys):
    """Keeps the first secret and tells the second caller that it was theirs."""

    def put_if_absent(self, name, secret):
        super().put_if_absent(name, secret)
        return secret


class _TakesAnyMetric(MemoryMetrics):
    """Counts whatever it is told, under whatever label."""

    def count(self, name, value=1, **labels):
        key = (name, tuple(sorted(labels.items())))
        self._values[key] = self._values.get(key, 0) + value


class PlantedOverwritesKeys(KeysConformance):
    def make(self, folder):
        return _OverwritesKeys()


class PlantedReturnsTheLosersKey(KeysConformance):
    def make(self, folder):
        return _ReturnsTheLosersKey()


class PlantedTakesAnyMetric(MetricsConformance):
    def make(self):
        return _TakesAnyMetric()
