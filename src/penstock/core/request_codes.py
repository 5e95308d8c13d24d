"""The error codes of requests: keys, bodies, paths and questions; part of `codes.CODES`."""

from penstock.core.stored_codes import Code

REQUEST: dict[str, Code] = {
    "E344": Code(
        "Two identifiers are to be cut apart, and no edge joins them.",
        "Cut the one of them that the message names, or check how both are spelt.",
    ),
    "E345": Code(
        "An identifier is to be cut from itself.", "Name the two identifiers that were joined."
    ),
    "E369": Code(
        "Dead letters are asked for by a reason that is no error code.",
        "Use a code such as E322; `penstock dead-letters list` shows those there are.",
    ),
    "E370": Code(
        "A request to the collector shows no write key.",
        "Send it as the user of Basic authentication, as `X-Write-Key`, or as `writeKey` in the body.",
    ),
    "E371": Code(
        "A request to the collector shows a write key that no source has.",
        "Copy `write_key` of the source from `penstock.toml` into the SDK.",
    ),
    "E372": Code(
        "A request's body is larger than its route takes, as sent or inflated.",
        "Send fewer events a batch, and less in each.",
    ),
    "E373": Code(
        "A compressed body is damaged or cut short.",
        "Send it again; check what stands between the SDK and the collector.",
    ),
    "E374": Code(
        "A body has a Content-Encoding that the collector does not read.",
        "Send gzip, deflate or no encoding.",
    ),
    "E375": Code(
        "A browser key was used from a web origin that its source does not name.",
        "Add the origin to `sources.NAME.origins` in `penstock.toml`, scheme and port included.",
    ),
    "E376": Code(
        "An import's job id is no plain text of 1 to 64 characters.",
        "Use letters, digits and any of `. _ : / -` in `job`.",
    ),
    "E377": Code(
        "A request's body did not arrive whole, or not in time.",
        "Send smaller batches, or look at the network.",
    ),
    "E378": Code(
        "SDK settings were asked for with a key that is no browser source's.",
        "Give pages the key of a source of kind `browser`; a server's key is secret.",
    ),
    "E379": Code(
        "A request shows no admin key, or another key.",
        "Send `Authorization: Bearer KEY` with the key of `server.admin_key`.",
    ),
    "E380": Code(
        "There is no such route, or it takes another method.", "See the reference of the HTTP API."
    ),
    "E381": Code(
        "A pixel's query has too many fields, or a name of too many parts.",
        "Send fewer, or send the event as JSON.",
    ),
    "E382": Code(
        "A pixel's query uses one name for a value and for an object.",
        "Send `properties.price=5`, not also `properties=…`.",
    ),
    "E383": Code(
        "A request's line and headers are larger than the server reads.",
        "Send fewer and shorter headers; put what is long into the body.",
    ),
    "E384": Code(
        "What arrived is not an HTTP/1 request.",
        "Check the client, and what stands between it and here.",
    ),
    "E387": Code(
        "More came in since the last reset than the test endpoints tell of.",
        "POST /_test/reset before each test.",
    ),
    "E388": Code(
        "A question about the past names an offset or an instant that has not been yet.",
        "Ask for an offset of the log, or for an instant before now.",
    ),
    "E389": Code(
        "The live preview or a test endpoint was asked for by a page of another site, or under another name "
        "than this machine's.",
        "Ask for it at http://127.0.0.1 with the port of `penstock up`.",
    ),
    "E390": Code(
        "`as_of` is before the newest record of the person.",
        "Ask for a later instant; a question about earlier knowledge needs a replay.",
    ),
    "E391": Code(
        "A request shows no read key, or one that is none of this server's.",
        "Send `Authorization: Bearer KEY` with a key of `server.read_keys`.",
    ),
    "E392": Code(
        "A request names no identifier, or several.",
        "Name exactly one of user_id, anonymous_id, email_token, or email in a POST.",
    ),
    "E393": Code(
        "This can be no identifier of a person: its type is unknown, or its value can be none of it.",
        "Name a type such as user_id, and a value without blanks around it; a type of your own that events send "
        "is named in `identity.limits`.",
    ),
    "E394": Code("A path names no identifier.", "Write it as user_id:VALUE or anonymous_id:VALUE."),
    "E395": Code(
        "An email address stands in a URL.",
        "POST it to /v1/profiles/lookup, or use an email token.",
    ),
    "E396": Code("A parameter is no ISO 8601 instant.", "Write it like 2026-11-25T10:00:00Z."),
    "E397": Code(
        "A request's body or query is not what its route takes.",
        "Use the parameter that the message proposes; the reference of the HTTP API has all of them, and the fields of bodies.",
    ),
    "E398": Code("A request names too many recipients.", "Split them over several requests."),
    "E399": Code(
        "There is no campaign of that name.",
        "Use the name of a file in campaigns/ without its ending.",
    ),
}
