"""The error codes of what is kept: damage, formats, archive and backups; part of `codes.CODES`."""

from typing import NamedTuple


class Code(NamedTuple):
    """One error code's reference entry: what it means and what to do."""

    what: str
    fix: str


STORED: dict[str, Code] = {
    "E270": Code(
        "`log.keep` is no span of days or hours.",
        'Write it such as "90d" or "36h"; empty keeps all.',
    ),
    "E271": Code(
        "The log was truncated, and something asks for what it no longer holds.",
        "Set `archive.place` back to the archive that holds it; without one, that is gone.",
    ),
    "E272": Code(
        "`log.keep` asks for a log that is truncated, and there is no archive that would have the rest.",
        "Set `archive.place`; or `log.forget = true` if history may go for good.",
    ),
    "E273": Code(
        "`penstock truncate` is asked, and nothing says how long the log is kept or where the rest of it is.",
        "Set `log.keep` or give --keep; and set `archive.place`, or `log.forget = true` if history may go for good.",
    ),
    "E275": Code(
        "The log was truncated without an archive, and leaves are to be made that no snapshot could begin.",
        "Restore a backup of the store, or go back to the version of Penstock that made the leaves.",
    ),
    "E276": Code(
        "The log goes on in an archive that is not named any more, and is to be truncated without one.",
        "Set `archive.place` back, or remove `log.keep`.",
    ),
    "E274": Code(
        "The log is to be truncated, and the leaves that serve are not those of this version.",
        "Let `penstock up` replay the log first.",
    ),
    "E440": Code(
        "A data file was never still for a moment, so that no backup could begin.",
        "Try again; look for a process that holds it open in a transaction.",
    ),
    "E441": Code(
        "A backup, or a data folder that is backed up or restored, could not be written or read.",
        "Check who may use it, and that its disk is not full.",
    ),
    "E442": Code(
        "Another process makes this backup, or restores into this data folder.", "Wait for it."
    ),
    "E701": Code("A record of the log does not decode.", "Stop and run `penstock doctor`."),
    "E702": Code(
        "A record of the log has a format newer than this version reads.", "Upgrade Penstock."
    ),
    "E703": Code(
        "A batch of the log does not read back: its checksum, its framing or its place is wrong.",
        "Stop `penstock up` and run `penstock repair --from BACKUP`; `penstock doctor` names every such place.",
    ),
    "E704": Code(
        "A stored leaf does not match its checksum or does not decode.",
        "Rebuild the store from the log with `penstock replay --accept`.",
    ),
    "E705": Code(
        "A stored leaf was made by other definitions or by another version.",
        "Rebuild the store from the log with `penstock replay --accept`.",
    ),
    "E706": Code(
        "A data file was written by a newer version of Penstock.",
        "Upgrade Penstock, or restore a backup made by this version.",
    ),
    "E707": Code(
        "A data file is damaged, or is not the kind of file it should be.",
        "Check the path; a damaged store is rebuilt from the log once moved away, others come from a backup.",
    ),
    "E708": Code(
        "The log has another generation or number of partitions than was asked for.",
        "Set the generation and the partitions back to those of the log.",
    ),
    "E709": Code(
        "The key file does not read back.",
        "Restore the key file from its backup; never let it be made anew.",
    ),
    "E710": Code(
        "Leaves differ from a replay of the log.",
        "Copy the data folder and report it; `penstock replay --accept` goes over to the leaves of the log.",
    ),
    "E711": Code(
        "The conservation law does not hold over the data.",
        "Copy the data folder, then rebuild the store from the log with `penstock replay --accept`.",
    ),
    "E712": Code(
        "A leaf is gone from the Redis server though it is listed there: it expired, was evicted or removed by hand.",
        "Let no key of ours expire or be removed; make the leaves from the log with `penstock replay --accept`.",
    ),
    "E730": Code(
        "A segment of the archive is damaged.",
        "While the log holds its records, remove it, and it is written again; else put a copy of it in its place.",
    ),
    "E731": Code(
        "The archive lacks an object.",
        "Check that `archive.place` names the right place; restore the object from a copy of the archive.",
    ),
    "E732": Code(
        "The index of the log by leaf is damaged.",
        "Remove `index.db` from the data folder while nothing runs; it is made again from the log.",
    ),
    "E720": Code(
        "A stored decision does not decode.", "Run `penstock doctor`; it names the record."
    ),
    "E721": Code(
        "A stored decision has a format newer than this version reads.", "Upgrade Penstock."
    ),
    "E750": Code(
        "A backup has no manifest that reads back: it is none, was cut short, or is damaged.",
        "Name the place of a whole backup, or use another one.",
    ),
    "E751": Code(
        "A file of a backup is missing, or is not what its manifest says.",
        "Use another backup: this one is damaged.",
    ),
    "E752": Code(
        "A stored leaf is not what its records of the log fold to.",
        "Copy the data folder and report it; `penstock replay --accept` goes over to the leaves of the log.",
    ),
}
