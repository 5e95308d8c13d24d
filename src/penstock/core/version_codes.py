"""The error codes of definitions versions: applied, rolled back, kept and gone; part of `codes.CODES`."""

from penstock.core.stored_codes import Code

VERSION: dict[str, Code] = {
    "E121": Code(
        "A feature looks further back than a field that it reads may be kept.",
        "Give the feature a shorter window, or the field a longer `retention_days`.",
    ),
    "E122": Code(
        "A new or changed feature looks back further than the log is kept, and no archive has what is older.",
        "Set `archive.place`, raise `log.keep` or shorten its window; or accept it with `penstock apply --allow-incomplete`.",
    ),
    "E190": Code(
        "Definitions are asked for that are not kept, or none have served yet.",
        "See `penstock versions` for those that are, or apply the files you want.",
    ),
    "E191": Code(
        "There are no earlier definitions to roll back to: their time is over, or there were none.",
        "Put the old files back and run `penstock apply`, which builds them anew.",
    ),
    "E192": Code(
        "The project's files can't be kept with their version: too many, too large, or not readable.",
        "Keep images and data elsewhere than among the Python, content and campaign files.",
    ),
    "E193": Code(
        "A campaign was published with definitions that are not kept any more.",
        "Raise its `version` and run `penstock apply`, or send it with `--republish`.",
    ),
    "E194": Code("Nothing is being applied.", "See `penstock versions`."),
    "E195": Code(
        "Events change in a way that breaks those who send them.",
        "Keep what senders go on sending, or run `penstock apply --allow-breaks` once they have changed.",
    ),
    "E196": Code("Schemas can't be written.", "Name a folder that you may write to."),
    "E197": Code(
        "A template shows a name that its data never have, or an email has no link to unsubscribe.",
        "Name a slot of the campaign, a declared trait or a field of its items; show `unsubscribe_url`. Features are no "
        "template values: show one through a slot, with a rule over it.",
    ),
    "E417": Code(
        "The table of definitions versions could not be read or kept; nothing was switched.",
        "Check the data folder's permissions and disk, and try again.",
    ),
    "E420": Code(
        "The leaves of new definitions are not folded any more; what served goes on serving.",
        "Look at what `penstock up` printed, restart it, and apply again.",
    ),
    "E502": Code(
        "Other definitions are being applied.",
        "Wait until they serve, or give them up with `penstock apply --give-up`.",
    ),
    "E740": Code(
        "The table of definitions versions, or a version's files, do not read back.",
        "Restore it from a backup, or move it away and apply the project's files.",
    ),
    "E741": Code(
        "The table of definitions versions has a format newer than this version reads.",
        "Upgrade Penstock.",
    ),
    "E742": Code(
        "New leaves differ from those that serve in features that both define alike; nothing was switched.",
        "Report it with the data folder; what served before goes on serving.",
    ),
    "E743": Code(
        "Applying definitions failed by a mistake of ours; nothing was switched.",
        "Report it; what served before goes on serving.",
    ),
}
