"""An ESP reached by SMTP: one connection, reused; it is always known whether an email may be out.

The outcome of a hand-over is decided by how far it came. Until the line with a single dot has been
written, the server must not deliver (RFC 5321 §4.1.1.4): a broken connection means "not sent". After
that only the server's answer tells; without one the email is in doubt and must not be sent again by
itself.
"""

import re
import smtplib
import socket
import ssl
from email.message import EmailMessage
from typing import Final

from penstock.core.errors import Unavailable
from penstock.ports.esp import HandOver

NONE: Final = "none"
STARTTLS: Final = "starttls"
TLS: Final = "tls"
TLS_KINDS: Final = (NONE, STARTTLS, TLS)
"""What `[esp] tls` may be."""

_CLOSING: Final = 421
"""The server's "I am closing this connection": what it answers to is not refused, only not taken."""

_LINE_BREAK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))")
_BROKEN: Final = (smtplib.SMTPException, OSError)
_CONTROL: Final = re.compile(r"[\x00-\x20<>\x7f]")
_BAD_ADDRESS: Final = 553
"""What a server says to an address that it cannot take."""


class SmtpEsp:
    """Hands emails to an SMTP server; implements `penstock.ports.esp.Esp`. Not for several threads."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str = "",
        password: str = "",
        tls: str = STARTTLS,
        timeout_s: float = 30.0,
        local_name: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Keep how to reach the server; the first email connects.

        Args:
            host: The server's name.
            port: 587 for STARTTLS, 465 for TLS, 25 within a private network.
            username: For the log-in; empty for none.
            password: For the log-in.
            tls: `starttls` and `tls` verify the server's certificate; `none` encrypts nothing.
            timeout_s: How long one step may take.
            local_name: What this machine calls itself; its own name if None.
            context: Other trust than the system's, for a private authority.
        """
        assert tls in TLS_KINDS, "tls is none, starttls or tls"
        self._host, self._port, self._tls = host, port, tls
        self._username, self._password = username, password
        self._timeout_s, self._local_name = timeout_s, local_name
        self._context = context
        self._connection: smtplib.SMTP | None = None

    def send(self, message: EmailMessage, *, sender: str, recipient: str) -> HandOver:
        """Hand one message over; the detail is the server's code.

        A connection that the server closed while it was idle is opened again, once.

        Raises:
            Unavailable: The server could not be reached (E406) or does not let us in (E409), and
                has not taken the message.
        """
        raw = _wire_bytes(message)
        fresh = self._connection is None
        outcome = self._try(raw, sender, recipient)
        if outcome is None and not fresh:
            outcome = self._try(raw, sender, recipient)
        if outcome is None:
            raise _unreachable("the connection broke before the email was handed over")
        return outcome

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.quit()
        except (smtplib.SMTPException, OSError):
            connection.close()

    def _try(self, raw: bytes, sender: str, recipient: str) -> HandOver | None:
        """Return the outcome, or None if the connection broke before the message could be taken."""
        connection = self._connection or self._connect()
        self._connection = connection
        try:
            refusal = self._envelope(connection, sender, recipient)
            if refusal is None:
                # Without the final line: until that is written, the server may not deliver.
                connection.send(raw)
        except _BROKEN:
            self._drop()
            return None
        if refusal is not None:
            return self._refused(connection, refusal)
        try:
            connection.send(b".\r\n")
            code, _ = connection.getreply()
        except _BROKEN:
            self._drop()
            return HandOver("in_doubt", "no answer")
        if 200 <= code < 300:
            return HandOver("accepted", str(code))
        if code == _CLOSING or not 400 <= code < 600:
            self._drop()
        # An answer that is neither yes nor no does not say that the email was left.
        return HandOver("refused" if 400 <= code < 600 else "in_doubt", str(code))

    def _envelope(self, connection: smtplib.SMTP, sender: str, recipient: str) -> int | None:
        """Say from whom and to whom; return the code of a refusal, or None to send the data."""
        if _CONTROL.search(sender + recipient):
            return _BAD_ADDRESS
        options: list[str] = []
        if not (sender.isascii() and recipient.isascii()):
            if not connection.has_extn("smtputf8"):
                return _BAD_ADDRESS
            options = ["SMTPUTF8", "BODY=8BITMIME"]
            connection.command_encoding = "utf-8"
        code, _ = connection.mail(sender, options)
        if code != 250:
            return code
        code, _ = connection.rcpt(recipient)
        if code not in (250, 251):
            return code
        code, _ = connection.docmd("DATA")
        return None if code == 354 else code

    def _refused(self, connection: smtplib.SMTP, code: int) -> HandOver | None:
        if code == _CLOSING:
            self._drop()
            return None
        try:
            # The next email starts from nothing, whatever this one left behind.
            connection.rset()
        except _BROKEN:
            self._drop()
        return HandOver("refused", str(code))

    def _connect(self) -> smtplib.SMTP:
        try:
            connection = self._open()
        except smtplib.SMTPConnectError as error:
            raise _unreachable(f"the ESP answered {error.smtp_code} to the connection") from error
        except (smtplib.SMTPException, OSError) as error:
            raise _unreachable(f"the ESP could not be reached ({type(error).__name__})") from error
        try:
            # The final line goes out by itself: without this it waits 40 ms for an acknowledgement.
            if connection.sock is not None:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls == STARTTLS:
                connection.starttls(context=self._context or ssl.create_default_context())
            if self._username:
                connection.login(self._username, self._password)
            else:
                connection.ehlo_or_helo_if_needed()
        except smtplib.SMTPAuthenticationError as error:
            connection.close()
            # The server's text is left out: some repeat the user name.
            raise _barred(f"the ESP refused the log-in with {error.smtp_code}",
                          "correct the user name and password of the ESP") from None  # fmt: skip
        except smtplib.SMTPNotSupportedError:
            connection.close()
            raise _barred("the ESP offers no STARTTLS or no log-in that we speak",
                          "set `tls` to what the ESP's documentation says") from None  # fmt: skip
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise _barred(f"the ESP's certificate is not trusted: {error.verify_message}",
                          "correct the host name, or trust the authority of the certificate") from error  # fmt: skip
        except (smtplib.SMTPException, OSError) as error:
            connection.close()
            raise _unreachable(
                f"the ESP broke off the greeting ({type(error).__name__})"
            ) from error
        return connection

    def _open(self) -> smtplib.SMTP:
        if self._tls == TLS:
            return smtplib.SMTP_SSL(
                self._host, self._port, self._local_name, timeout=self._timeout_s,
                context=self._context or ssl.create_default_context(),
            )  # fmt: skip
        return smtplib.SMTP(self._host, self._port, self._local_name, timeout=self._timeout_s)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _wire_bytes(message: EmailMessage) -> bytes:
    """Return a message as it goes over the wire: CRLF, dots doubled, ending with a line break."""
    raw = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    raw = re.sub(rb"(?m)^\.", b"..", _LINE_BREAK.sub(b"\r\n", raw))
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


def _unreachable(what: str) -> Unavailable:
    return Unavailable("E406", what, fix="retry; check the ESP's host, port and network")


def _barred(what: str, fix: str) -> Unavailable:
    return Unavailable("E409", what, fix=fix)
