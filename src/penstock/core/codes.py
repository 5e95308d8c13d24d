"""The catalogue of error codes: what each means, why it exists, an example and its fix.

`docs/reference/errors.md` is generated from this table; a test fails for a code that is raised but
not listed, or listed but never raised.
"""

from typing import NamedTuple


class Code(NamedTuple):
    """One error code's reference entry: what it means and what to do."""

    what: str
    fix: str


CODES: dict[str, Code] = {
    # E1xx definitions
    "E100": Code("An expression over event fields was used as a truth value; it has none until an event arrives.",
                 "Write `&`, `|`, `~` and `.in_(…)`, with each comparison in parentheses."),
    "E101": Code("An expression holds a value that is no string, whole number, decimal, boolean or None.",
                 "Compare fields with plain values."),
    # E2xx settings
    # E3xx events, rows and requests
    # E4xx dependencies
    "E401": Code("The log did not take a batch or did not answer; nothing of the batch is kept.",
                 "Retry; if it lasts, look at the disk of the data folder: full, read-only or failing."),
    "E402": Code("The store of leaves did not answer; it is not known what was written.",
                 "Retry, writing again is safe; if it lasts, look at the disk or the service."),
    "E403": Code("The register of suppressions did not answer; nothing was kept.",
                 "Retry; until it answers nothing is sent or personalised."),
    "E404": Code("The decision store did not answer; it is not known whether decisions were kept.",
                 "Retry; until it answers the fallback is served."),
    "E405": Code("The key table did not answer, or holds no key of that name.",
                 "Restore the key file from its backup; `penstock init` makes keys for a new project."),
    "E406": Code("The ESP could not be reached and has not seen the message.",
                 "Retry; check the ESP's host, port and credentials in `penstock.toml`."),
    "E407": Code("Another process owns this data folder.",
                 "Stop the other `penstock up`, or ask it over HTTP instead of opening the folder."),
    "E408": Code("The key file can be read by others than its owner.",
                 "Run `chmod 600` on the key file, and change the keys if others had access."),
    # E5xx conflicts
    # E6xx fencing
    # E7xx corruption
    "E701": Code("A record of the log does not decode.", "Stop and run `penstock doctor`."),
    "E702": Code("A record of the log has a format newer than this version reads.", "Upgrade Penstock."),
    "E703": Code("A batch of the log does not read back: its checksum, its framing or its place is wrong.",
                 "Stop, run `penstock doctor`, and restore the log from a backup."),
    "E704": Code("A stored leaf does not match its checksum or does not decode.",
                 "Rebuild the store from the log with `penstock replay`."),
    "E705": Code("A stored leaf was made by other definitions or by another version.",
                 "Rebuild the store from the log with `penstock replay`."),
    "E706": Code("A data file was written by a newer version of Penstock.",
                 "Upgrade Penstock, or restore a backup made by this version."),
    "E707": Code("A data file is damaged, or is not the kind of file it should be.",
                 "Check the path; else stop, run `penstock doctor`, and restore the file from a backup."),
    "E708": Code("The log has another generation or number of partitions than was asked for.",
                 "Set the generation and the partitions back to those of the log."),
    "E709": Code("The key file does not read back.",
                 "Restore the key file from its backup; never let it be made anew."),
}
