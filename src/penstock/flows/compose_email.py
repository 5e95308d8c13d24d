"""Rendered parts become one email: links tracked and tagged, size measured, headers safe to send."""

import binascii
import html as html_entities
import re
from collections.abc import Callable, Mapping, Sequence
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from html.parser import HTMLParser
from itertools import accumulate
from typing import Any, Final, NamedTuple

from penstock.core.decision.mailbox import is_address, mailbox_of
from penstock.core.errors import DefinitionError
from penstock.core.tokens import is_web_url

WARN_BYTES: Final = 80_000
REFUSE_BYTES: Final = 100_000
"""Gmail clips HTML at about 102 kB: what is cut off is the end, with the unsubscribe link."""

_UNFOLDED: Final = frozenset({"list-unsubscribe", "list-unsubscribe-post", "message-id"})
_RESERVED: Final = _UNFOLDED | frozenset(
    {"bcc", "cc", "content-transfer-encoding", "content-type", "from", "mime-version"}
    | {"subject", "to"}
)
_HEADER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_HEADER_CHARS_MAX: Final = 900
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_MESSAGE_ID: Final = re.compile(r"<[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+>")


class _MailPolicy(EmailPolicy):
    """CRLF lines; headers that receivers read or sign as one line are not folded.

    Texts that are not ASCII are encoded here, because the standard library loses blanks between the
    encoded words of a long subject (CPython, `email._header_value_parser._fold_as_ew`).
    """

    def fold(self, name: str, value: Any) -> str:
        lowered = name.lower()
        if lowered in _UNFOLDED:
            return f"{name}: {value}{self.linesep}"
        if lowered == "subject" and _foreign(value):
            return f"{name}: {_encoded_words(value, self.linesep)}{self.linesep}"
        if lowered == "from" and _foreign(value.addresses[0].display_name):
            words = _encoded_words(value.addresses[0].display_name, self.linesep)
            return f"{name}: {words}{self.linesep} <{value.addresses[0].addr_spec}>{self.linesep}"
        return super().fold(name, value)

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


def _foreign(text: str) -> bool:
    return not text.isascii() or "=?" in text


def _encoded_words(text: str, linesep: str) -> str:
    """Return a text as RFC 2047 encoded words, one a line of at most 78 characters."""
    chunks = [""]
    for char in text:
        if len((chunks[-1] + char).encode()) > 42:
            chunks.append("")
        chunks[-1] += char
    words = (binascii.b2a_base64(chunk.encode(), newline=False).decode() for chunk in chunks)
    return f"{linesep} ".join(f"=?utf-8?b?{word}?=" for word in words)


MAIL_POLICY: Final = _MailPolicy(linesep="\r\n", cte_type="7bit")


class SizeReport(NamedTuple):
    """How large an email's HTML is, and what that means for it."""

    bytes: int
    verdict: str
    """`ok`, `warn` from 80 kB, `refuse` from 100 kB."""


def compose_email(  # noqa: PLR0913 - an email has this many parts, all named
    *,
    sender: str,
    recipient: str,
    subject: str,
    html: str,
    text: str,
    message_id: str,
    list_unsubscribe_url: str,
    mailto: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> EmailMessage:
    """Return a multipart email of a text and an HTML part, with one-click unsubscribe.

    Args:
        sender: `Shop <news@shop.example>` or an address alone.
        recipient: One address, without a name.
        subject: As rendered; blanks around it are cut off.
        html: The HTML part.
        text: The text part.
        message_id: `<decision id@domain>`; see `message_id_of`.
        list_unsubscribe_url: Where a POST unsubscribes this recipient (RFC 8058).
        mailto: An address that unsubscribes by mail, as a second way.
        headers: More headers, such as `Reply-To` or `Feedback-ID`.

    Raises:
        DefinitionError: A header holds a line break or another control character, an address is
            not exactly one address, or a header is not the caller's to set (E142). No value is
            quoted.
    """
    assert is_web_url(list_unsubscribe_url), "the one-click address is a web address"
    assert _MESSAGE_ID.fullmatch(message_id), "a Message-ID is <name@domain>"
    ways = f"<{_header('List-Unsubscribe', list_unsubscribe_url)}>"
    if mailto:
        ways = f"{ways}, <mailto:{_address('mailto', mailto)}>"
    message = EmailMessage(policy=MAIL_POLICY)
    message["From"] = _mailbox("From", sender)
    message["To"] = _mailbox("To", _address("To", recipient))
    message["Subject"] = _header("Subject", subject)
    message["Message-ID"] = message_id
    message["List-Unsubscribe"] = ways
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise DefinitionError("E142", "a header is not one that a campaign may set",
                                  fix="remove it; names are letters, digits and `-`") from None  # fmt: skip
        message[name] = _header(name, value)
    message["MIME-Version"] = "1.0"
    message["Content-Type"] = f'multipart/alternative; boundary="{_boundary(message_id)}"'
    # The last alternative is the one a reader prefers.
    message.set_payload([_part("plain", text), _part("html", html)])
    return message


def message_id_of(decision_id: str, domain: str) -> str:
    """Return the Message-ID that carries a decision's id, by which feedback is joined to it."""
    return f"<{decision_id}@{domain}>"


def decision_id_of(message_id: str) -> str:
    """Return the decision id in a Message-ID that `message_id_of` made."""
    return message_id.strip().strip("<>").partition("@")[0]


def size_report(html: str) -> SizeReport:
    """Return the size of an HTML part in bytes of UTF-8 and whether it may be sent."""
    size = len(html.encode("utf-8", "replace"))
    verdict = "refuse" if size >= REFUSE_BYTES else "warn" if size >= WARN_BYTES else "ok"
    return SizeReport(size, verdict)


def instrument_html(
    html: str,
    *,
    click: Callable[[str, int], str],
    pixel_url: str | None,
    utm: Mapping[str, str],
    exempt: Sequence[str] = (),
) -> str:
    """Return HTML whose links are tagged and tracked, with an open pixel at the top of its body.

    Only the values of `href` in `<a>` and `<area>` change, and nothing else by a single byte. Links
    to `mailto:`, `tel:`, `sms:`, places in the page, relative links, and links that begin with an
    exempt prefix stay as they are. Links of any other kind, such as `javascript:`, lead nowhere (`#`).

    Args:
        html: A document or a fragment.
        click: Given a target with its tags and the link's number from 0, returns the tracking link.
        pixel_url: The open pixel; None for no pixel.
        utm: Query parameters to add to every target that lacks them, such as `utm_source`.
        exempt: Prefixes of links to leave alone: the unsubscribe page, links tracked before.
    """
    finder = _LinkFinder(html)
    finder.feed(html)
    finder.close()
    edits: list[tuple[int, int, str]] = []
    number = 0
    for start, end, value in finder.hrefs:
        target = _clean(value)
        if _stays(target) or any(target.startswith(prefix) for prefix in exempt):
            continue
        changed = "#"
        if is_web_url(target):
            changed = click(with_params(target, utm), number)
            number += 1
        edits.append((start, end, f'"{html_entities.escape(changed, quote=True)}"'))
    if pixel_url is not None:
        edits.append((finder.top, finder.top, _pixel(pixel_url)))
    pieces: list[str] = []
    position = 0
    for start, end, replacement in sorted(edits):
        pieces += (html[position:start], replacement)
        position = end
    pieces.append(html[position:])
    return "".join(pieces)


def with_params(url: str, params: Mapping[str, str]) -> str:
    """Return a link with query parameters added, before its fragment; those it has are kept."""
    rest, hash_sign, fragment = url.partition("#")
    query = rest.partition("?")[2]
    present = {pair.partition("=")[0] for pair in query.split("&")}
    added = "&".join(
        f"{_percent(name)}={_percent(value)}"
        for name, value in params.items()
        if name not in present
    )
    if not added:
        return url
    joint = "" if rest.endswith(("?", "&")) else "&" if "?" in rest else "?"
    return f"{rest}{joint}{added}{hash_sign}{fragment}"


_ATTRIBUTE: Final = re.compile(r"([^\s/>=\"'][^\s/>=]*)(?:(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s>]+))?")
_TAG_NAME: Final = re.compile(r"<[A-Za-z][^\s/>]*")
_STAYING: Final = ("mailto:", "tel:", "sms:")


class _LinkFinder(HTMLParser):
    """Finds the places of `href` values: (start, end, value as a browser reads it)."""

    def __init__(self, html: str) -> None:
        # Not left to `handle_charref`: without conversion the parser stops reading at a stray `&#`.
        super().__init__(convert_charrefs=True)
        self._html = html
        self.hrefs: list[tuple[int, int, str]] = []
        self.top = 0
        """Where the body's content begins; 0 in a fragment."""
        self._found_body = False
        self._line_starts = [0, *accumulate(len(line) + 1 for line in html.split("\n"))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"a", "area", "body", "html"}:
            return
        text = self.get_starttag_text() or ""
        start = self._position()
        if tag in {"body", "html"}:
            if not self._found_body:
                self.top = start + len(text)
                self._found_body = tag == "body"
            return
        name = _TAG_NAME.match(text)
        for match in _ATTRIBUTE.finditer(text, name.end() if name else 0):
            # Of two attributes with the same name a browser takes the first.
            if match.group(1).lower() == "href" and match.group(3) is not None:
                value = match.group(3)
                if value[0] in "\"'" and value[-1:] == value[0] and len(value) > 1:
                    value = value[1:-1]
                span = (start + match.start(3), start + match.end(3))
                self.hrefs.append((*span, html_entities.unescape(value)))
                return

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == "head" and not self._found_body:
            self.top = self._html.find(">", self._position()) + 1

    def _position(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column


def _clean(value: str) -> str:
    """Return a link as a browser follows it: without blanks around it and line breaks inside."""
    return re.sub(r"[\t\n\r]", "", value.strip("".join(map(chr, range(33)))))


def _stays(target: str) -> bool:
    lowered = target.lower()
    if lowered.startswith(_STAYING):
        return True
    # A colon before any slash, question mark or hash sign names a scheme.
    return not re.match(r"[^/?#]*:", lowered)


def _pixel(url: str) -> str:
    return (
        f'<img src="{html_entities.escape(url, quote=True)}" width="1" height="1" alt=""'
        ' style="display:block;width:1px;height:1px;border:0">'
    )


def _percent(text: str) -> str:
    """Return a text safe in a query: letters, digits and `-._~` as they are, the rest as %XX."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "-._~")
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
        for char in text
    )  # fmt: skip


def _header(name: str, value: str) -> str:
    value = value.strip()
    if _CONTROL.search(value):
        raise DefinitionError("E142", f"the header {name} holds a line break or control character",
                              fix="keep it on one line; `strip_newlines` removes breaks in Liquid")  # fmt: skip
    if len(value) > _HEADER_CHARS_MAX:
        raise DefinitionError("E142", f"the header {name} is longer than {_HEADER_CHARS_MAX} characters",
                              fix="shorten it, with `truncate` in Liquid")  # fmt: skip
    return value.encode("utf-8", "replace").decode()


def _address(name: str, value: str) -> str:
    if not is_address(value):
        raise DefinitionError("E142", f"the header {name} does not hold exactly one email address",
                              fix="give one address such as name@shop.example")  # fmt: skip
    return value


def _mailbox(name: str, value: str) -> Address:
    _header(name, value)
    display, address = mailbox_of(value)
    local, _, domain = _address(name, address).rpartition("@")
    try:
        local.encode("ascii")
        domain = domain if domain.isascii() else domain.encode("idna").decode()
        return Address(display_name=display, username=local, domain=domain)
    except (ValueError, MessageError):  # not quoted: the library's message holds the address
        raise DefinitionError("E142", f"the header {name} holds an address that mail cannot carry",
                              fix="write the part before the @ in ASCII") from None  # fmt: skip


def _boundary(message_id: str) -> str:
    # Derived, so that the same email has the same bytes; `=_` never occurs in quoted-printable.
    return "=_" + re.sub(r"[^A-Za-z0-9]", "", message_id)[:60]


def _part(subtype: str, body: str) -> EmailMessage:
    """Return a text part in quoted-printable: lines of at most 76 ASCII characters on any path."""
    part = EmailMessage(policy=MAIL_POLICY)
    part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
    part["Content-Transfer-Encoding"] = "quoted-printable"
    lines = body.replace("\r\n", "\n").replace("\r", "\n")
    if not lines.endswith("\n"):
        lines += "\n"
    raw = binascii.b2a_qp(lines.encode("utf-8", "replace"), istext=True)
    part.set_payload(raw.decode("ascii"))
    return part
