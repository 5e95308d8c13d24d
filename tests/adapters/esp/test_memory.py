"""MemoryEsp: keeps what it accepts, and answers as it is told."""

from penstock.adapters.esp.memory import MemoryEsp
from penstock.ports.esp import HandOver
from penstock.testing.conformance.esp import RECIPIENT, SENDER, an_email


def test_it_keeps_the_envelope_and_the_bytes():
    esp = MemoryEsp()
    esp.send(an_email(7), sender=SENDER, recipient=RECIPIENT)
    (taken,) = esp.delivered
    assert (SENDER, RECIPIENT, f"<{7:032x}@shop.example>") == taken[:3]
    assert taken.raw.startswith(b"From: news@shop.example\r\n")


def test_it_answers_as_it_is_told_and_keeps_only_what_it_accepts():
    refuse = HandOver("refused", "550")
    esp = MemoryEsp(
        lambda recipient: refuse if recipient == "bad@x" else HandOver("accepted", "250")
    )
    assert refuse == esp.send(an_email(1), sender=SENDER, recipient="bad@x")
    assert "accepted" == esp.send(an_email(2), sender=SENDER, recipient=RECIPIENT).state
    assert [RECIPIENT] == [each.recipient for each in esp.delivered]
