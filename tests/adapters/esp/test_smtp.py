"""SmtpEsp against real servers: outcomes by how far a hand-over came, reuse, log-in and TLS."""

import re
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from penstock.adapters.esp.smtp import SmtpEsp
from penstock.core.errors import Unavailable
from penstock.testing.conformance.esp import RECIPIENT, SENDER, an_email

HOST = "127.0.0.1"


class Inbox:
    """Takes emails; answers as it is told, by the recipient's local part."""

    def __init__(self):
        self.taken = []
        self.connections = 0

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):  # noqa: N802
        code = re.match(r"rcpt-(\d{3})@", address)
        if code:
            return f"{code.group(1)} {address} is not welcome"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        told = re.match(r"data-(\w+)@", envelope.rcpt_tos[0])
        if told and told.group(1) == "drop":
            self.taken.append(envelope.original_content)
            server.transport.abort()
            return "250 never arrives"
        if told:
            return f"{told.group(1)} no"
        self.taken.append(envelope.original_content)
        return "250 OK"


@contextmanager
def server(inbox, port=0, **options):
    if not port:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
    controller = Controller(inbox, hostname=HOST, port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@contextmanager
def connected(port, **options):
    esp = SmtpEsp(HOST, port, timeout_s=5, local_name="test", **{"tls": "none", **options})
    try:
        yield esp
    finally:
        esp.close()


def send(esp, recipient=RECIPIENT, sender=SENDER):
    return tuple(esp.send(an_email(), sender=sender, recipient=recipient))


def test_one_connection_carries_many_emails():
    inbox = Inbox()
    with server(inbox) as port, connected(port) as esp:
        assert [("accepted", "250")] * 20 == [send(esp) for _ in range(20)]
    assert (20, 1) == (len(inbox.taken), inbox.connections)


@pytest.mark.parametrize(
    ("recipient", "code"),
    [("rcpt-550@x.example", "550"), ("rcpt-451@x.example", "451"),
     ("data-554@x.example", "554"), ("data-452@x.example", "452")],
)  # fmt: skip
def test_a_refusal_says_the_code_and_leaves_the_connection_usable(recipient, code):
    inbox = Inbox()
    with server(inbox) as port, connected(port) as esp:
        assert ("refused", code) == send(esp, recipient)
        assert ("accepted", "250") == send(esp)
    assert (1, 1) == (len(inbox.taken), inbox.connections)


def test_a_connection_lost_after_the_end_of_data_leaves_the_email_in_doubt():
    inbox = Inbox()
    with server(inbox) as port, connected(port) as esp:
        assert ("in_doubt", "no answer") == send(esp, "data-drop@x.example")
        assert ("accepted", "250") == send(esp)
    assert (2, 2) == (len(inbox.taken), inbox.connections)


def test_a_server_that_is_not_there_is_unavailable_and_named_without_addresses():
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    with connected(port) as esp, pytest.raises(Unavailable) as caught:
        send(esp)
    assert "E406" == caught.value.code
    assert RECIPIENT not in str(caught.value)


def test_a_connection_that_the_server_closed_while_idle_is_opened_again():
    inbox = Inbox()
    with server(inbox) as port, connected(port) as esp:
        assert ("accepted", "250") == send(esp)
        esp._connection.sock.shutdown(socket.SHUT_RDWR)
        assert ("accepted", "250") == send(esp)
    assert (2, 2) == (len(inbox.taken), inbox.connections)


def test_a_server_that_comes_back_is_found_again():
    inbox = Inbox()
    with server(inbox) as port, connected(port) as esp:
        assert ("accepted", "250") == send(esp)
        esp.close()
        kept = port
    with connected(kept) as esp:
        with pytest.raises(Unavailable):
            send(esp)
        with server(inbox, port=kept):
            assert ("accepted", "250") == send(esp)
    assert 2 == len(inbox.taken)


@pytest.mark.parametrize(
    "address", ["a@x.example>\r\nRCPT TO:<b@x.example", "a b@x.example", "a\n@x"]
)
def test_an_address_cannot_carry_a_command(address):
    inbox = Inbox()
    with server(inbox) as port, connected(port) as esp:
        assert ("refused", "553") == send(esp, address)
        assert ("refused", "553") == send(esp, sender=address)
        assert ("accepted", "250") == send(esp)
    assert 1 == len(inbox.taken)


def test_an_address_beyond_ascii_is_refused_where_the_server_cannot_take_it():
    with server(Inbox(), enable_SMTPUTF8=False) as port, connected(port) as esp:
        assert ("refused", "553") == send(esp, "zoë@x.example")


def test_an_address_beyond_ascii_is_carried_where_the_server_can():
    inbox = Inbox()
    with server(inbox, enable_SMTPUTF8=True) as port, connected(port) as esp:
        assert ("accepted", "250") == send(esp, "zoë@x.example")
    assert 1 == len(inbox.taken)


# ------------------------------------------------------------ servers that break off at a given word


@contextmanager
def scripted(*connections):
    """Serve each connection by a list of (answer, then): `then` is `read`, `data` or `hang up`."""
    listener = socket.create_server((HOST, 0))
    seen = []

    def serve():
        for script in connections:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as lines:
                for answer, then in script:
                    if answer:
                        peer.sendall(answer.encode() + b"\r\n")
                    if then == "hang up":
                        break
                    if then == "data":
                        for line in iter(lines.readline, b".\r\n"):
                            if not line:
                                break
                        seen.append("data")
                    else:
                        seen.append(lines.readline().split(b" ")[0].strip().decode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        listener.close()
        thread.join(5)


HELLO = [("220 hi", "read"), ("250 ok", "read")]  # EHLO, then MAIL
ENVELOPE = [*HELLO, ("250 ok", "read"), ("250 ok", "read")]  # RCPT, then DATA


@pytest.mark.parametrize(
    "script",
    [
        [("", "hang up")],
        [("421 too busy", "hang up")],
        [("554 go away", "hang up")],
        [("220 hi", "read"), ("", "hang up")],
        [*HELLO, ("", "hang up")],
        [*HELLO, ("421 closing", "hang up")],
        [*HELLO, ("250 ok", "read"), ("", "hang up")],
        [*ENVELOPE, ("", "hang up")],
    ],
    ids=["no greeting", "421", "554", "after EHLO", "after MAIL", "421 to MAIL", "after RCPT", "after DATA"],
)  # fmt: skip
def test_a_first_connection_that_breaks_before_the_data_ends_is_unavailable(script):
    with scripted(script) as (port, _), connected(port) as esp:
        with pytest.raises(Unavailable) as caught:
            send(esp)
        assert "E406" == caught.value.code


@pytest.mark.parametrize("answer", ["", "hello?", "354 more?"])
def test_an_answer_that_is_neither_yes_nor_no_leaves_the_email_in_doubt(answer):
    script = [*ENVELOPE, ("354 go on", "data"), (answer, "hang up")]
    with scripted(script) as (port, seen), connected(port) as esp:
        assert "in_doubt" == send(esp)[0]
    assert ["ehlo", "mail", "rcpt", "DATA".lower(), "data"] == [word.lower() for word in seen]


def test_an_old_connection_closed_with_421_is_replaced_without_losing_the_email():
    first = [
        *ENVELOPE,
        ("354 go on", "data"),
        ("250 taken", "read"),
        ("421 idle too long", "hang up"),
    ]
    second = [*ENVELOPE, ("354 go on", "data"), ("250 taken", "read")]
    with scripted(first, second) as (port, seen), connected(port) as esp:
        assert [("accepted", "250")] * 2 == [send(esp), send(esp)]
    assert 2 == seen.count("data")


# ------------------------------------------------------------------------------- log-in and encryption


@pytest.fixture(scope="module")
def certificate(tmp_path_factory, program):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def server_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_tls(certificate):
    return ssl.create_default_context(cafile=str(certificate[0]))


def only_ada(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"ada", b"right"), handled=False)


def test_starttls_and_log_in(server_tls, client_tls):
    inbox = Inbox()
    options = {"tls_context": server_tls, "require_starttls": True, "authenticator": only_ada,
               "auth_required": True}  # fmt: skip
    with server(inbox, **options) as port:
        with connected(port, tls="starttls", context=client_tls, username="ada",
                       password="right") as esp:  # fmt: skip
            assert ("accepted", "250") == send(esp)
        with connected(port, tls="starttls", context=client_tls, username="ada",
                       password="canary") as esp, pytest.raises(Unavailable) as caught:  # fmt: skip
            send(esp)
    assert "E409" == caught.value.code
    assert "canary" not in str(caught.value)
    assert "ada" not in str(caught.value)
    assert 1 == len(inbox.taken)


def test_tls_from_the_first_byte(server_tls, client_tls):
    inbox = Inbox()
    with (
        server(inbox, ssl_context=server_tls) as port,
        connected(port, tls="tls", context=client_tls) as esp,
    ):
        assert ("accepted", "250") == send(esp)
    assert 1 == len(inbox.taken)


def test_a_certificate_nobody_vouches_for_is_not_accepted(server_tls):
    inbox = Inbox()
    with (
        server(inbox, tls_context=server_tls) as port,
        connected(port, tls="starttls") as esp,
        pytest.raises(Unavailable) as caught,
    ):
        send(esp)
    assert "E409" == caught.value.code
    assert [] == inbox.taken


def test_a_server_without_starttls_gets_nothing_in_the_clear():
    inbox = Inbox()
    with (
        server(inbox) as port,
        connected(port, tls="starttls") as esp,
        pytest.raises(Unavailable) as caught,
    ):
        send(esp)
    assert "E409" == caught.value.code
    assert [] == inbox.taken
