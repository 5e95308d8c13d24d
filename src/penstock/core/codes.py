"""The catalogue of error codes: what each means, why it exists, an example and its fix.

`docs/reference/errors.md` is generated from this table; a test fails for a code that is raised but not listed, or listed but never raised.
"""

from penstock.core.request_codes import REQUEST
from penstock.core.service_codes import SERVICE
from penstock.core.stored_codes import STORED, Code
from penstock.core.version_codes import VERSION

__all__ = ["CODES", "Code"]

CODES: dict[str, Code] = {
    # E1xx definitions
    "E100": Code(
        "An expression over event fields was used as a truth value; it has none until an event arrives.",
        "Write `&`, `|`, `~` and `.in_(…)`, with each comparison in parentheses.",
    ),
    "E101": Code(
        "An expression holds a value that is no string, whole number, decimal, boolean or None.",
        "Compare fields with plain values.",
    ),
    "E102": Code(
        "A definition names a field that the event type does not have.",
        "Correct the name, or declare the field in `events.py`.",
    ),
    "E103": Code(
        "An event type or a field is declared wrongly: its name, kind, version or a limit.",
        "Change it as the message says.",
    ),
    "E104": Code(
        "A field asks for the protection `encrypt`, which does not exist yet.",
        "Use `pseudonym` or `drop` until it does.",
    ),
    "E105": Code(
        "A field's protection does not exist, or does not fit its kind or class.",
        "Choose one that the message names.",
    ),
    "E106": Code(
        "A field's privacy annotation is wrong: its category, class, purpose or retention.",
        "Use a Fideslang category, a class from the list, a plain purpose and whole days.",
    ),
    "E107": Code(
        "A field's currency or scale is wrong.", "Write an ISO 4217 code, and a scale from 0 to 9."
    ),
    "E108": Code("Two event types have one name.", "Keep one of the two, or rename one."),
    "E109": Code("An option of the catalog is wrong.", "Choose one that the message names."),
    "E130": Code(
        "A limit of identifiers a person is out of range.",
        "Choose a limit within the range the message names.",
    ),
    "E131": Code(
        "A limit is set for what is no identifier type of a person.",
        "Name a type such as `email`, `phone` or `esp.braze`; things have no limit.",
    ),
    "E132": Code(
        "The policy for devices that two people used is none that exists.",
        "Write `neither` or `first`.",
    ),
    "E133": Code("The consent regime is none that exists.", "Write `opt_in` or `opt_out`."),
    "E134": Code("A purpose is not a plain name.", "Use letters, digits and `_`."),
    "E140": Code(
        "A template failed on a person's data, or went over a limit on work, output or depth.",
        "Loop over fewer things, test values with `if`, or give a `default`; the slot's fallback was shown.",
    ),
    "E141": Code(
        "A template cannot be loaded: its Liquid does not parse, or it names what does not exist.",
        "Correct the line that the message names.",
    ),
    "E142": Code(
        "A header of an email holds a line break, or an address that is not exactly one address.",
        "Keep headers on one line; in Liquid `strip_newlines` removes breaks.",
    ),
    "E143": Code(
        "A Liquid tag stands where MJML or CSS drops it.",
        "Move it into `mj-text`, `mj-raw`, a link or a style attribute.",
    ),
    "E144": Code(
        "The MJML of a template does not compile, or has an element or attribute that MJML does not know.",
        "Correct what the message names.",
    ),
    "E145": Code(
        "The CSS of a template cannot be inlined.",
        "Correct the style sheet in the template's head.",
    ),
    "E146": Code(
        "A template is asked for that does not exist.",
        "Make it in the content folder, or correct the name.",
    ),
    "E150": Code(
        "A slot or an audience names a feature that is not defined.",
        "Define it in `features.py`, or correct the name.",
    ),
    "E151": Code(
        "A slot or an audience names a trait that no event type declares.",
        "Declare it on the identify of `events.py`, or correct the name.",
    ),
    "E152": Code(
        "A predicate over a person or an item is not one: it is used as a truth value, compares with "
        "something that is no plain value, is too large, or reads an item where there is none.",
        "Join comparisons in brackets with `&`, `|`, `~`; use `item(…)` in `unless=` of a slot only.",
    ),
    "E153": Code(
        "A slot's fallback does not end with static content, so it could come out empty.",
        'End it with content that needs no item and no person: `fallback=fixed(content={"title": "New in"})`.',
    ),
    "E154": Code(
        "An argument of a slot or an audience is out of its bounds or of another kind.",
        "Change it as the message says.",
    ),
    "E155": Code(
        "A candidate source is not registered, is registered twice, or has arguments it can't work with.",
        "Register it with `candidate_source`, or correct its name and arguments.",
    ),
    "E156": Code("Two slots, or two audiences, have one name.", "Rename one of them."),
    "E157": Code(
        "A field, a feature, a slot or an audience names a purpose that does not exist.",
        "Correct the name, or add a purpose of your own to `consent.purposes` in `penstock.toml`.",
    ),
    "E158": Code(
        "A campaign's file has a key that means nothing.", "Remove it, or correct its spelling."
    ),
    "E159": Code(
        "A value in a campaign's file is lacking or of another type.",
        "Write it as the message says.",
    ),
    "E160": Code(
        "A campaign names a slot that is not defined.",
        "Define it in `slots.py`, or correct the name.",
    ),
    "E161": Code("A share is not a number from 0 to 1.", "Write 0.05 for 5 %; 0 turns it off."),
    "E162": Code(
        "A campaign or an audience names a topic that does not exist.",
        "Add the topic to `penstock.toml`, or correct the name.",
    ),
    "E163": Code(
        "A slot or a campaign names a template that does not exist.",
        "Write it in `content/`, or correct the name.",
    ),
    "E164": Code(
        "A campaign names an audience that is not defined.",
        "Define it in `audiences.py`, or correct the name.",
    ),
    "E165": Code(
        "A campaign's goal names an event that is not declared.",
        "Declare it in `events.py`, or correct the name.",
    ),
    "E166": Code(
        "A cap or quiet hours are wrong.",
        'Write a cap as `"3 in 7 days"` under `email.caps`, and quiet hours as `"21:00-08:00"`.',
    ),
    "E110": Code(
        "A feature folds an event that is not declared.",
        "Declare the event in events.py, or fold the one that was meant.",
    ),
    "E111": Code(
        "A feature uses an aggregate, or a derivation, that does not exist.",
        "Use one of the list in docs/reference/aggregates.md.",
    ),
    "E112": Code(
        "A feature's window cannot be kept: it is too short, or has too many tiles.",
        'Use days(7), hours(1), lifetime() or tumbling("day"), with a wider tile if needed.',
    ),
    "E113": Code(
        "A feature's parameter is out of its range, or its aggregate does not take it.",
        "Use a value within the range that docs/reference/aggregates.md gives.",
    ),
    "E114": Code(
        "A feature folds a value that its aggregate does not take, or none where one is needed.",
        "Fold a field of a kind that the aggregate takes.",
    ),
    "E115": Code(
        "A feature's `where=` has no type, such as money compared with a plain number.",
        'Compare values of one kind; write amounts as `amount("10.00", "GBP")`.',
    ),
    "E116": Code(
        "A feature is grouped, or made distinct, by something that cannot be a key.",
        "Use a field that is a string, an enum, an integer or a boolean.",
    ),
    "E117": Code(
        "A feature names no event, or reads fields of another event or of items it does not fold.",
        "Name one event, and read only its fields; fold line items with `each(event, items)`.",
    ),
    "E118": Code(
        "A feature's name is taken or cannot be used in a template, or there are too many features.",
        "Name each feature once, as a Python variable.",
    ),
    "E119": Code(
        "Something names a feature that does not exist.",
        "Use the name of a feature in features.py.",
    ),
    "E120": Code(
        "The project's time zone is not in the tz database.",
        'Write an IANA name, such as "Europe/London".',
    ),
    "E167": Code(
        "`email.timezone_trait` names a trait that is not declared.",
        "Declare it among the `traits(…)` of events.py, or correct its name.",
    ),
    "E180": Code("A campaign's file is not TOML.", "Mend the line that the message names."),
    "E181": Code(
        "A project file does not load.",
        "Mend the line that the message names; it is your file's own error.",
    ),
    "E182": Code(
        "A campaign that is to be rendered names no template.",
        'Add `template = "NAME"` to the campaign, and write content/NAME.mjml.liquid.',
    ),
    "E183": Code(
        "An email is larger than mail clients show whole.",
        "Shorten the template or its texts to less than 100 kB.",
    ),
    "E184": Code(
        "A case of the project's tests asks for something the driver does not give.",
        "Take one argument, `driver`.",
    ),
    # E2xx settings
    "E200": Code(
        "There is no `penstock.toml` in the folder.",
        "Run `penstock init DIR`, or give the project's folder with `--project`.",
    ),
    "E201": Code("`penstock.toml` is not TOML.", "Mend the line that the message names."),
    "E202": Code(
        "`penstock.toml` has a setting that does not exist.",
        "Use the name the message proposes, or remove it.",
    ),
    "E203": Code(
        "A setting has a value of the wrong type.",
        "Give it the type that the reference of settings names.",
    ),
    "E204": Code("A setting is none of its choices.", "Use one of the choices the message lists."),
    "E205": Code("Two sources have the same write key.", "Give each source a key of its own."),
    "E206": Code(
        "A setting names an adapter that does not exist.",
        "Use one of the adapters the message lists.",
    ),
    "E207": Code(
        "A setting is out of its range, or two settings do not go together.",
        "Give it a value within the bounds that the message names.",
    ),
    "E208": Code(
        "The data folder holds a log, and its keys are missing.",
        "Restore keys.json from its backup: with new keys every identifier would be somebody else.",
    ),
    "E210": Code(
        "The address of the server can't be listened on.",
        "Stop what listens there, or choose another port with `--port`.",
    ),
    "E211": Code(
        "A line of a file can't be read.",
        "Mend the line that the message names, and load it again.",
    ),
    "E212": Code(
        "No reader knows files of this ending.",
        "Use a file that ends in .csv, .jsonl, .ndjson or .parquet.",
    ),
    "E213": Code(
        "The folder for a new project is not empty.", "Name a folder that does not exist yet."
    ),
    "E214": Code("The header of a CSV file can't be used.", "Name each column once, on one line."),
    "E215": Code(
        "The campaign decided no slot of this name.", "Use a slot that the message lists."
    ),
    "E216": Code(
        "A file that the command line makes can't be written.",
        "Make its folder writable, or name another.",
    ),
    "E217": Code(
        "A secret that is needed is not set: the admin key, or an environment variable that a setting names.",
        "Set `server.admin_key`, or the variable that the message names; then restart `penstock up`.",
    ),
    "E218": Code(
        "The data folder can't be made.",
        "Set `data_dir` to a folder that the user of the process may write to.",
    ),
    "E219": Code(
        "A setting of `[development]` can't be used as it is.",
        "The preview and the test endpoints need a loopback address, and the preview's files must exist.",
    ),
    "E220": Code(
        "`penstock init --with` names something that a project can't be made for.",
        "Name `kafka`, `redis` or `registry`, or several with commas between.",
    ),
    "E225": Code(
        "Parquet files need an extra that is not installed.", "pip install 'penstock[parquet]'"
    ),
    "E226": Code("An export can't be written.", "Name a file in a folder that you may write to."),
    "E228": Code(
        "The keys of a source's identity tokens can't be used.",
        "Give each at least 32 random characters, and keep at most eight.",
    ),
    "E229": Code(
        "A setting of `[feed]` can't be used: the log is not on Kafka, there is no registry, or a purpose or a span is none.",
        "Change it as the message says.",
    ),
    "E227": Code(
        "A file is no Parquet that can be read.", "Write it again, each column named once."
    ),
    "E240": Code(
        "There is something where a backup is to be made, and a backup overwrites nothing.",
        "Name a folder or a prefix that does not exist yet.",
    ),
    "E241": Code(
        "There is nothing to back up: a data file is missing, or leaves are in memory or on a server.",
        "Check `data_dir` in penstock.toml, and run `penstock up` once; Redis has snapshots of its own.",
    ),
    "E242": Code(
        "There is something where a backup is to be restored, and a restore overwrites nothing.",
        "Move the data folder away and name it with `--later`: it may hold unsubscribes and sends that the backup does not.",
    ),
    "E243": Code(
        "A restore into the data folder was cut short.",
        "Run the same `penstock restore` again; it goes on.",
    ),
    "E244": Code(
        "A backup is of another tenant than the project.",
        "Restore it into its own project, or into an empty folder.",
    ),
    "E245": Code("S3 needs an extra that is not installed.", "pip install 'penstock[s3]'"),
    "E246": Code(
        "This is no place for a backup or an archive.", "Name a folder, or `s3://BUCKET/PREFIX`."
    ),
    "E247": Code(
        "There is nothing to merge into what is restored.",
        "Name the data folder that was lost or a later backup, or its `suppressions.db` or `decisions.db`.",
    ),
    "E248": Code(
        "A copy that is to fill the gaps of a damaged log is of another log.",
        "Name a backup of this project.",
    ),
    "E249": Code(
        "The project has no archive.", "Name its place in `archive.place` in penstock.toml."
    ),
    "E250": Code(
        "The data folder is another tenant's.",
        "Set `project.tenant` back to what it was, or name another data folder.",
    ),
    "E251": Code(
        "A source's `basis` is none of the six lawful bases of article 6 GDPR.",
        "Use the basis that the message proposes.",
    ),
    "E252": Code(
        "A setting names a purpose that does not exist.",
        "Correct the name, or add a purpose of your own to `consent.purposes`.",
    ),
    "E253": Code(
        "Emails would go to another machine with links that only this one can follow.",
        "Set `server.public_url` to how mail clients reach this server.",
    ),
    "E260": Code(
        "A setting of `[email]` is no address that an email can carry.",
        'Write an address alone, such as `sender = "news@shop.example"`, and its name as `sender_name`.',
    ),
    "E261": Code(
        "`server.public_url` is nothing that a link in an email can start with.",
        'Write it with its scheme, such as `public_url = "https://mail.shop.example"`.',
    ),
    # E3xx events, rows and requests
    "E300": Code(
        "A request, or one event of a batch, is not well-formed JSON.",
        "Check it with a JSON linter; NaN, Infinity and comments are not JSON.",
    ),
    "E301": Code(
        "A request or an event is not a JSON object, or a batch has no list `batch`.",
        'Send `{"batch": [{"type": "track", …}]}`, or one event as an object.',
    ),
    "E302": Code(
        "A request or an event has more bytes than are taken.",
        "Shorten properties, or split the batch.",
    ),
    "E303": Code(
        "A batch has more events than are taken; those beyond were rejected, or all if far beyond.",
        "Send fewer events in one batch.",
    ),
    "E304": Code("Objects and lists nest too deep.", "Send flat properties."),
    "E305": Code(
        "An event's type is missing or not one of the Segment spec's.",
        "Send identify, track, page, screen, group or alias.",
    ),
    "E306": Code(
        "A field of the Segment spec has another type than the spec gives it.",
        "Send what the message asks for, or null.",
    ),
    "E307": Code("A text holds the character NUL.", "Send the text without it."),
    "E308": Code(
        "A text holds half of a surrogate pair, which is no character.",
        "Cut texts between characters, not inside an emoji.",
    ),
    "E309": Code("A key is there twice in one object.", "Send each key once."),
    "E310": Code(
        "An identifier, a message id or an event's name is too long.", "Send a shorter one."
    ),
    "E311": Code(
        "An event's timestamp is not an ISO 8601 instant of the years 1970 to 9998.",
        "Send a text such as `2026-11-25T10:00:00Z`, or leave it out.",
    ),
    "E312": Code("A `track` event has no name.", "Send `event`."),
    "E314": Code("A request or an event is not UTF-8.", "Encode it as UTF-8."),
    "E320": Code(
        "An event's name is not declared, and the project rejects such events.",
        "Declare it in `events.py`, or set `undeclared` to `keep` or `drop`.",
    ),
    "E321": Code("A required field is missing.", "Send it, or declare it optional."),
    "E322": Code(
        "A value is not of the kind that its field declares.",
        "Send the kind that the message names, or declare another.",
    ),
    "E323": Code(
        "A number is beyond ±(2⁵³ - 1), where JSON readers lose digits.",
        "Send it as a text and declare a string.",
    ),
    "E324": Code(
        "A text is longer than its field allows.", "Shorten it, or declare a greater `chars_max`."
    ),
    "E325": Code(
        "A value is not one of those that its field declares.", "Send one of them, or declare more."
    ),
    "E326": Code(
        "A value is not an ISO 8601 instant of the years 1 to 9999.",
        "Send a text such as `2026-11-25T10:00:00Z`.",
    ),
    "E327": Code(
        "An amount's currency is not an ISO 4217 code, or missing without a default.",
        "Send three letters, or declare a default currency.",
    ),
    "E328": Code(
        "A list has more items than its field allows.",
        "Send fewer, or declare a greater `items_max`.",
    ),
    "E340": Code(
        "An event has no usable identifier: none was sent, or all are placeholders.",
        "Send a user id, an anonymous id, an email or an external id of the person.",
    ),
    "E341": Code(
        "An event under a public key has neither a usable anonymous id nor user id.",
        "Send `anonymousId`; or send it from a server, under a server source's key.",
    ),
    "E342": Code("A group event has no usable group id.", "Send the group's id in `groupId`."),
    "E343": Code("An alias has no usable previous id.", "Send the former id in `previousId`."),
    "E350": Code(
        "A token is cut short or altered.", "Use the whole link as it stands in the email."
    ),
    "E351": Code(
        "A token was not signed by this installation for this use.",
        "Use the link as it stands in the email; if keys were lost, restore them from their backup.",
    ),
    "E352": Code("A token was made by a newer version.", "Upgrade Penstock on this server."),
    "E353": Code(
        "A click's target is not an http or https address.",
        "Follow the link as it stands in the email.",
    ),
    # E37x requests to the collector
    "E354": Code("A click names no target.", "Follow the link as it stands in the email."),
    "E360": Code(
        "An identifier's leaf is over its size limit: it is quarantined, and its events are kept as dead letters.",
        "Find what sends so much under one identifier, such as `guest` or a crawler, and block the value in `identity.blocked_values`. If it is a person, raise `store.leaf_bytes_max` and run `penstock apply`: the events are in the log, and count then.",
    ),
    "E361": Code(
        "Rows to load are of no known kind, or too many for one call.",
        "Load `items`, `people` or `events`; split the rows.",
    ),
    "E362": Code(
        "A row of people has no identifier.", "Add a column user_id, anonymous_id or email."
    ),
    "E363": Code("A row of items has no item id.", "Add a column item_id, product_id, sku or id."),
    "E364": Code(
        "A dead letter's source is not declared any more.",
        "Declare the source again in `penstock.toml`, then replay.",
    ),
    "E365": Code(
        "Rows are loaded for a source that is not declared.",
        "Declare `[sources.NAME]` in `penstock.toml`, or name another with `--source`.",
    ),
    "E366": Code("Nothing can be decided for a person now.", "Look at /ready and at the metrics."),
    "E367": Code(
        "There is no audience of that name.",
        "Define it in audiences.py, or name another with `--audience`.",
    ),
    "E368": Code(
        "The source that people are loaded from declares no lawful basis, so nothing of them may be kept.",
        "Declare it in penstock.toml: basis under the source, by purpose.",
    ),
    # E4xx dependencies
    "E401": Code(
        "The log did not take a batch or did not answer; nothing of the batch is kept.",
        "Retry; if it lasts, look at the disk of the data folder: full, read-only or failing.",
    ),
    "E402": Code(
        "The store of leaves did not answer; it is not known what was written.",
        "Retry, writing again is safe; if it lasts, look at the disk or the service.",
    ),
    "E403": Code(
        "The register of suppressions did not answer; nothing was kept.",
        "Retry; until it answers nothing is sent or personalised.",
    ),
    "E404": Code(
        "The decision store did not answer; it is not known whether decisions were kept.",
        "Retry; until it answers the fallback is served.",
    ),
    "E405": Code(
        "The key table did not answer, or holds no key of that name.",
        "Restore the key file from its backup; `penstock init` makes keys for a new project.",
    ),
    "E406": Code(
        "The ESP could not be reached and has not seen the message.",
        "Retry; check the ESP's host, port and credentials in `penstock.toml`.",
    ),
    "E407": Code(
        "Another process owns this data folder.",
        "Stop the other `penstock up`, or ask it over HTTP instead of opening the folder.",
    ),
    "E408": Code(
        "The key file can be read by others than its owner.",
        "Run `chmod 600` on the key file, and change the keys if others had access.",
    ),
    "E409": Code(
        "The ESP was reached but does not let us in: log-in, encryption or certificate.",
        "Correct the ESP's `tls`, user name and password in `penstock.toml`.",
    ),
    "E410": Code(
        "More events arrive than the log can keep.",
        "Retry after the time in `Retry-After`; a larger machine or a faster disk takes more.",
    ),
    "E411": Code(
        "The wall clock moved by more than five minutes; nothing is stamped while it is off.",
        "Set the clock, let NTP keep it, and restart `penstock up`.",
    ),
    "E412": Code("More decisions wait than can be kept.", "Retry a moment later."),
    "E413": Code(
        "A store failed on a batch; it is not known what was kept.",
        "Retry; the process's log says what failed.",
    ),
    "E414": Code(
        "The engine did not answer the command line.",
        "Look at what `penstock up` printed; start it again, or stop it and run the command without it.",
    ),
    "E415": Code("A send of this id is running already.", "Wait until it ends, then send again."),
    "E416": Code("The engine stopped, and a send with it.", "Send again under the same id."),
    "E418": Code(
        "The index of the log by leaf did not answer.",
        "Retry; if it lasts, check the disk. The file may be removed while nothing runs: it is made again.",
    ),
    "E419": Code(
        "The archive did not answer.",
        "Retry, which is safe; check the folder or bucket, the endpoint and the credentials.",
    ),
    "E430": Code(
        "More requests are in flight than the collector takes, or those before have waited too long.",
        "Retry after the time in `Retry-After`; `penstock_requests_shed_total` says for what others wait.",
    ),
    "E431": Code(
        "A write key sends more requests a second than it may.",
        "Send batches, or raise `server.requests_per_s_per_key`.",
    ),
    "E432": Code(
        "The collector failed on a request; nothing is known to be kept.",
        "Retry; the log of the server names the place where it failed, which is a bug to report.",
    ),
    "E433": Code(
        "The server failed on a request.",
        "Retry; the log of the server names the place, which is a bug to report.",
    ),
    "E434": Code(
        "More requests were sent on one connection, unanswered, than are kept for it.",
        "Wait for answers before sending more; send batches.",
    ),
    "E435": Code(
        "Requests and connections fill the room that is set aside for them.",
        "Retry after the time in `Retry-After`; see `server.connections_max`.",
    ),
    # E5xx conflicts
    "E501": Code(
        "The archive holds other bytes under a name that is to be written.",
        "Archive into an empty folder or prefix; two projects must not share one.",
    ),
    # E6xx fencing
    "E601": Code(
        "Another worker has written a leaf of this partition.",
        "Nothing: the worker drops its cache and seeks to its applied offset. If it repeats, two processes fold one partition.",
    ),
    "E602": Code(
        "A partition was fed from beyond its applied offset.",
        "Nothing: the worker seeks to its applied offset.",
    ),
    "E607": Code(
        "Another process writes to a topic of `[feed]`, which has one writer at a time.",
        "Nothing: this one stands by. If it repeats, three processes or more are started again and again.",
    ),
    # E7xx corruption
    **REQUEST,
    **SERVICE,
    **STORED,
    **VERSION,
}
