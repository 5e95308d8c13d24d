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
    "E150": Code("A slot or an audience names a feature that is not defined.",
                 "Define it in `features.py`, or correct the name."),
    "E151": Code("A slot or an audience names a trait that no event type declares.",
                 "Declare it on the identify of `events.py`, or correct the name."),
    "E152": Code("A predicate over a person or an item is not one: it is used as a truth value, compares with "
                 "something that is no plain value, is too large, or reads an item where there is none.",
                 "Join comparisons in brackets with `&`, `|`, `~`; use `item(…)` in `unless=` of a slot only."),
    "E153": Code("A slot's fallback does not end with static content, so it could come out empty.",
                 'End it with content that needs no item and no person: `fallback=fixed(content={"title": "New in"})`.'),
    "E154": Code("An argument of a slot or an audience is out of its bounds or of another kind.",
                 "Change it as the message says."),
    "E155": Code("A candidate source is not registered, is registered twice, or has arguments it can't work with.",
                 "Register it with `candidate_source`, or correct its name and arguments."),
    "E156": Code("Two slots, or two audiences, have one name.", "Rename one of them."),
    "E157": Code("A slot or an audience names a purpose that does not exist.",
                 "Add the purpose to `penstock.toml`, or correct the name."),
    "E158": Code("A campaign's file has a key that means nothing.", "Remove it, or correct its spelling."),
    "E159": Code("A value in a campaign's file is lacking or of another type.", "Write it as the message says."),
    "E160": Code("A campaign names a slot that is not defined.", "Define it in `slots.py`, or correct the name."),
    "E161": Code("A share is not a number from 0 to 1.", "Write 0.05 for 5 %; 0 turns it off."),
    "E162": Code("A campaign or an audience names a topic that does not exist.",
                 "Add the topic to `penstock.toml`, or correct the name."),
    "E163": Code("A slot or a campaign names a template that does not exist.",
                 "Write it in `content/`, or correct the name."),
    "E164": Code("A campaign names an audience that is not defined.",
                 "Define it in `audiences.py`, or correct the name."),
    "E165": Code("A campaign's goal names an event that is not declared.",
                 "Declare it in `events.py`, or correct the name."),
    # E2xx settings
    # E3xx events, rows and requests
    # E37x requests to the collector
    "E370": Code("A request to the collector shows no write key.",
                 "Send it as the user of Basic authentication, as `X-Write-Key`, or as `writeKey` in the body."),
    "E371": Code("A request to the collector shows a write key that no source has.",
                 "Copy `write_key` of the source from `penstock.toml` into the SDK."),
    "E372": Code("A request's body is larger than its route takes, as sent or inflated.",
                 "Send fewer events a batch, and less in each."),
    "E373": Code("A compressed body is damaged or cut short.",
                 "Send it again; check what stands between the SDK and the collector."),
    "E374": Code("A body has a Content-Encoding that the collector does not read.",
                 "Send gzip, deflate or no encoding."),
    "E375": Code("A browser key was used from a web origin that its source does not name.",
                 "Add the origin to `sources.NAME.origins` in `penstock.toml`, scheme and port included."),
    "E376": Code("An import's job id is no plain text of 1 to 64 characters.",
                 "Use letters, digits and any of `. _ : / -` in `job`."),
    "E377": Code("A request's body did not arrive whole, or not in time.",
                 "Send smaller batches, or look at the network."),
    "E378": Code("SDK settings were asked for with a key that is no browser source's.",
                 "Give pages the key of a source of kind `browser`; a server's key is secret."),
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
    "E430": Code("More requests are in flight than the collector takes.",
                 "Retry after the time in `Retry-After`; raise `server.requests_max` if the machine can bear it."),
    "E431": Code("A write key sends more requests a second than it may.",
                 "Send batches, or raise `server.requests_per_s_per_key`."),
    "E432": Code("The collector failed on a request; nothing is known to be kept.",
                 "Retry; the log of the server names the place where it failed, which is a bug to report."),
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
    "E720": Code("A stored decision does not decode.", "Run `penstock doctor`; it names the record."),
    "E721": Code("A stored decision has a format newer than this version reads.", "Upgrade Penstock."),
}
