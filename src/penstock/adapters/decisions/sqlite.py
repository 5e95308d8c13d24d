"""The decision store on SQLite: decisions with their outbox, reservations and sends, all fsynced."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock.adapters.sqlite import FileKind, Session, chunked
from penstock.core.decision.record import decision_id_of
from penstock.core.time import DAY_MS
from penstock.ports.decisions import Decided, DecisionKey, SendState

LAPSED_KEPT_MS: Final = 7 * DAY_MS
"""A lapsed reservation is kept so long: its email may have been sent after all, and be confirmed."""

KIND: Final = FileKind(
    what="the decision store",
    application_id=0x50534443,  # PSDC
    format=1,
    schema=(
        """CREATE TABLE decisions (
            decision_id BLOB NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            recipient BLOB NOT NULL,
            campaign TEXT NOT NULL,
            send TEXT NOT NULL,
            slot TEXT NOT NULL,
            record BLOB NOT NULL
        ) STRICT""",
        """CREATE TABLE outbox (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            decision_id BLOB NOT NULL
        ) STRICT""",
        """CREATE TABLE reservations (
            recipient BLOB NOT NULL,
            cap TEXT NOT NULL,
            token TEXT NOT NULL,
            until_ms INTEGER NOT NULL,
            PRIMARY KEY (recipient, cap, token)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX reservations_by_token ON reservations (token)",
        """CREATE TABLE sends (
            campaign TEXT NOT NULL,
            send TEXT NOT NULL,
            recipient BLOB NOT NULL,
            tenant TEXT NOT NULL,
            slot TEXT NOT NULL,
            state TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            detail TEXT NOT NULL,
            PRIMARY KEY (campaign, send, recipient, tenant, slot)
        ) STRICT, WITHOUT ROWID""",
    ),
    code="E404",
    synchronous="FULL",
)

_READ = "SELECT decision_id, record FROM decisions WHERE decision_id IN ({})"
_PUT = "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_OUTBOX = "INSERT INTO outbox VALUES (NULL, ?)"
_FIND = """SELECT tenant, recipient, campaign, send, slot, record FROM decisions
    WHERE decision_id = ?"""
_OUTBOX = """SELECT outbox.sequence, decisions.record FROM outbox JOIN decisions USING (decision_id)
    ORDER BY outbox.sequence LIMIT ?"""
_HELD = """SELECT token, until_ms FROM reservations
    WHERE recipient = ? AND cap = ? AND until_ms > ?"""
_FORGET = "DELETE FROM reservations WHERE recipient = ? AND cap = ? AND until_ms < ?"
_RESERVE = "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?)"
_SEND = """SELECT state, at_ms, detail FROM sends
    WHERE campaign = ? AND send = ? AND recipient = ? AND tenant = ? AND slot = ?"""
_PUT_SEND = "INSERT OR REPLACE INTO sends VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SENDS = """SELECT tenant, recipient, campaign, send, slot, state, at_ms, detail FROM sends
    WHERE campaign = ?1 AND send = ?2 AND (?3 = '' OR state = ?3)
    ORDER BY recipient, tenant, slot"""

_MERGE = (
    # Each that is new goes to the outbox, once more perhaps: its record has its id, and counts once.
    """INSERT INTO outbox SELECT NULL, decision_id FROM later.decisions
        WHERE decision_id NOT IN (SELECT decision_id FROM decisions) ORDER BY rowid""",
    "INSERT OR IGNORE INTO decisions SELECT * FROM later.decisions ORDER BY rowid",
    """INSERT INTO sends SELECT * FROM later.sends WHERE 1
        ON CONFLICT DO UPDATE SET state = excluded.state, at_ms = excluded.at_ms, detail = excluded.detail
        WHERE (excluded.at_ms, excluded.state <> 'started') > (at_ms, state <> 'started')""",
    """INSERT INTO reservations SELECT * FROM later.reservations WHERE 1
        ON CONFLICT DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)""",
)


class SqliteDecisions:
    """The decision store in one SQLite file, which several processes may open.

    Args:
        path: The file; its folder exists.

    Raises:
        Unavailable: The file can't be opened (E404).
        DataCorrupt: The file is damaged or of another kind (E707), or newer (E706).
    """

    def __init__(self, path: Path) -> None:
        self._reader = Session(path, KIND)
        self._writer = Session(path, KIND)
        with self._writer.use():
            pass

    # ---------------------------------------------------------------------------------- decisions

    def put_if_absent(self, items: Sequence[tuple[DecisionKey, bytes]]) -> list[Decided]:
        """Keep each record unless one stands already, with its outbox entry, in one transaction."""
        ids = [_raw_id(key) for key, _ in items]
        with self._reader.use() as connection:
            standing = _standing(connection, ids)
        if len(standing) == len(set(ids)):
            # Asked twice is common and writes nothing: what a reader sees has been fsynced.
            return [Decided(standing[raw_id], created=False) for raw_id in ids]
        with self._writer.transaction() as connection:
            standing = _standing(connection, ids)
            decided: list[Decided] = []
            created: list[tuple[object, ...]] = []
            for raw_id, (key, record) in zip(ids, items, strict=True):
                if raw_id not in standing:
                    standing[raw_id] = record
                    created.append((raw_id, *key, record))
                    decided.append(Decided(record, created=True))
                else:
                    decided.append(Decided(standing[raw_id], created=False))
            connection.executemany(_PUT, created)
            connection.executemany(_PUT_OUTBOX, ((row[0],) for row in created))
        return decided

    def get(self, keys: Sequence[DecisionKey]) -> list[bytes | None]:
        """Return the records that stand, in order."""
        ids = [_raw_id(key) for key in keys]
        with self._reader.use() as connection:
            standing = _standing(connection, ids)
        return [standing.get(raw_id) for raw_id in ids]

    def find(self, decision_id: str) -> tuple[DecisionKey, bytes] | None:
        """Return a decision by its id, or None."""
        try:
            raw_id = bytes.fromhex(decision_id)
        except ValueError:
            return None
        with self._reader.use() as connection:
            row = connection.execute(_FIND, (raw_id,)).fetchone()
        return None if row is None else (DecisionKey(*row[:5]), row[5])

    def outbox(self, limit: int) -> list[tuple[int, bytes]]:
        """Return up to `limit` records not yet in the log, oldest first."""
        with self._reader.use() as connection:
            return connection.execute(_OUTBOX, (max(limit, 0),)).fetchall()

    def outbox_done(self, sequences: Sequence[int]) -> None:
        """Forget outbox entries."""
        with self._writer.transaction() as connection:
            connection.executemany(
                "DELETE FROM outbox WHERE sequence = ?", ((sequence,) for sequence in sequences)
            )

    def merge_file(self, path: Path) -> int:
        """Merge another file's decisions, sends and reservations; return how many decisions are new.

        Of a decision that both have, the one here stands; of a send, the later state.

        Args:
            path: The other file, which stays as it is.

        Raises:
            Unavailable: One of the two does not answer (E404).
            DataCorrupt: The other is damaged, of another kind (E707) or newer (E706).
        """
        other = Session(path, KIND, read_only=True)
        try:
            with other.use(), self._writer.use() as connection:
                connection.execute("ATTACH ? AS later", (f"{path.absolute().as_uri()}?mode=ro",))
                try:
                    with self._writer.transaction():
                        new = connection.execute(_MERGE[0]).rowcount
                        for statement in _MERGE[1:]:
                            connection.execute(statement)
                finally:
                    connection.execute("DETACH later")
            return new
        finally:
            other.close()

    # ------------------------------------------------------------------------------- reservations

    def reserve(
        self, recipient: bytes, cap: str, *, limit: int, token: str, until_ms: int, now_ms: int
    ) -> bool:
        """Reserve one unit of a frequency cap; counted and taken in one transaction."""
        with self._writer.transaction() as connection:
            held = dict(connection.execute(_HELD, (recipient, cap, now_ms)).fetchall())
            if token in held:
                return True
            if len(held) >= limit:
                return False
            connection.execute(_FORGET, (recipient, cap, now_ms - LAPSED_KEPT_MS))
            connection.execute(_RESERVE, (recipient, cap, token, until_ms))
            return True

    def has_room(self, recipient: bytes, cap: str, *, limit: int, token: str, now_ms: int) -> bool:
        """Return what `reserve` would."""
        with self._reader.use() as connection:
            held = dict(connection.execute(_HELD, (recipient, cap, now_ms)).fetchall())
        return token in held or len(held) < limit

    def confirm(self, token: str, until_ms: int) -> None:
        """Make a reservation last until `until_ms`, also one that has lapsed meanwhile."""
        with self._writer.transaction() as connection:
            connection.execute(
                "UPDATE reservations SET until_ms = ? WHERE token = ?", (until_ms, token)
            )

    def release(self, token: str) -> None:
        """Give a reservation back."""
        with self._writer.transaction() as connection:
            connection.execute("DELETE FROM reservations WHERE token = ?", (token,))

    # -------------------------------------------------------------------------------------- sends

    def start_send(
        self, key: DecisionKey, message_id: str, now_ms: int, *, again_from: SendState | None = None
    ) -> SendState | None:
        """Record that an email is about to be handed over, unless it was."""
        with self._writer.transaction() as connection:
            row = connection.execute(_SEND, _send_key(key)).fetchone()
            if row is not None and SendState(*row) != again_from:
                return SendState(*row)
            connection.execute(_PUT_SEND, (*_send_key(key), "started", now_ms, message_id))
        return None

    def finish_send(self, key: DecisionKey, state: SendState) -> None:
        """Record the outcome of a hand-over."""
        with self._writer.transaction() as connection:
            connection.execute(_PUT_SEND, (*_send_key(key), *state))

    def sends(
        self, campaign: str, send: str, *, state: str = ""
    ) -> list[tuple[DecisionKey, SendState]]:
        """Return the emails of a send, ordered by recipient."""
        with self._reader.use() as connection:
            rows = connection.execute(_SENDS, (campaign, send, state)).fetchall()
        return [(DecisionKey(*row[:5]), SendState(*row[5:])) for row in rows]

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
        self._writer.close()


def _raw_id(key: DecisionKey) -> bytes:
    return bytes.fromhex(decision_id_of(*key))


def _send_key(key: DecisionKey) -> tuple[str, str, bytes, str, str]:
    return key.campaign, key.send, key.recipient, key.tenant, key.slot


def _standing(connection: sqlite3.Connection, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for chunk in chunked(sorted(set(ids))):
        statement = _READ.format(",".join("?" * len(chunk)))
        found.update(connection.execute(statement, chunk).fetchall())
    return found
