"""What every ESP adapter must do: take an email whole and once, and say what became of it."""

from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.ports.esp import Esp

SENDER = "news@shop.example"
RECIPIENT = "ada@example.com"
TEXT = "Hello\n.\n..two dots\nFrom here it goes on, £5 and ünïcode.\n"
HTML = (
    '<p class="x">Hello £5</p>\n<a href="https://shop.example/?a=1&amp;b=2">'
    + "x" * 2_000
    + "</a>\n"
)


class EspUnderTest(NamedTuple):
    """An adapter at work and how the suite sees what arrived."""

    esp: Esp
    delivered: Callable[[], list[bytes]]
    """The emails that arrived, as bytes, in order of arrival or by name."""
    stop: Callable[[], None] = lambda: None
    """Ends whatever `make` started."""


def an_email(number: int = 1) -> EmailMessage:
    """Return an email with both parts, lines that begin with dots, and text beyond ASCII."""
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = RECIPIENT
    message["Subject"] = f"Number {number}"
    message["Message-ID"] = f"<{number:032x}@shop.example>"
    message.set_content(TEXT, cte="quoted-printable")
    message.add_alternative(HTML, subtype="html", cte="quoted-printable")
    return message


class EspConformance:
    """Subclass it, say how to make the adapter, and pytest runs the suite."""

    def make(self, tmp_path: Path) -> EspUnderTest:
        """Return an adapter that accepts every email, and what it delivered."""
        raise NotImplementedError

    @pytest.fixture
    def under_test(self, tmp_path: Path) -> Iterator[EspUnderTest]:
        made = self.make(tmp_path)
        yield made
        made.esp.close()
        made.stop()

    def test_an_accepted_email_arrives_whole(self, under_test: EspUnderTest):
        outcome = under_test.esp.send(an_email(), sender=SENDER, recipient=RECIPIENT)
        assert outcome.state == "accepted"
        (raw,) = under_test.delivered()
        arrived = message_from_bytes(raw, policy=default)
        assert isinstance(arrived, EmailMessage)
        assert str(arrived["Subject"]) == "Number 1"
        assert str(arrived["Message-ID"]) == f"<{1:032x}@shop.example>"
        plain, html = arrived.get_body(("plain",)), arrived.get_body(("html",))
        assert plain is not None
        assert html is not None
        assert plain.get_content().replace("\r\n", "\n") == TEXT
        assert html.get_content().replace("\r\n", "\n") == HTML

    def test_lines_end_as_mail_demands(self, under_test: EspUnderTest):
        under_test.esp.send(an_email(), sender=SENDER, recipient=RECIPIENT)
        (raw,) = under_test.delivered()
        assert raw.count(b"\n") == raw.count(b"\r\n")
        assert max(len(line) for line in raw.split(b"\r\n")) <= 998

    def test_each_email_arrives_once(self, under_test: EspUnderTest):
        for number in range(5):
            outcome = under_test.esp.send(an_email(number), sender=SENDER, recipient=RECIPIENT)
            assert outcome.state == "accepted"
        subjects = sorted(str(message_from_bytes(raw)["Subject"]) for raw in under_test.delivered())
        assert subjects == [f"Number {number}" for number in range(5)]

    def test_the_message_is_not_changed(self, under_test: EspUnderTest):
        message = an_email()
        before = message.as_bytes()
        under_test.esp.send(message, sender=SENDER, recipient=RECIPIENT)
        assert message.as_bytes() == before

    def test_the_outcome_names_no_address(self, under_test: EspUnderTest):
        outcome = under_test.esp.send(an_email(), sender=SENDER, recipient=RECIPIENT)
        assert RECIPIENT not in outcome.detail
        assert SENDER not in outcome.detail

    def test_closing_twice_does_nothing(self, under_test: EspUnderTest):
        under_test.esp.send(an_email(), sender=SENDER, recipient=RECIPIENT)
        under_test.esp.close()
        under_test.esp.close()

    def test_it_may_be_used_again_after_closing(self, under_test: EspUnderTest):
        under_test.esp.close()
        outcome = under_test.esp.send(an_email(), sender=SENDER, recipient=RECIPIENT)
        assert outcome.state == "accepted"
        assert len(under_test.delivered()) == 1
