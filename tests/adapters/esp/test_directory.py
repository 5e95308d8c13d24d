"""DirectoryEsp: files whole or absent, one for each Message-ID, with the envelope in front."""

import pytest

from penstock.adapters.esp.directory import DirectoryEsp, file_name
from penstock.core.errors import Unavailable
from penstock.testing.conformance.esp import RECIPIENT, SENDER, an_email


def test_a_file_is_named_for_its_message_and_says_the_envelope(tmp_path):
    outcome = DirectoryEsp(tmp_path / "a" / "b").send(
        an_email(), sender=SENDER, recipient=RECIPIENT
    )
    name = f"{1:032x}@shop.example.eml"
    assert ("accepted", name) == outcome
    assert [name] == [path.name for path in (tmp_path / "a" / "b").iterdir()]
    head = (tmp_path / "a" / "b" / name).read_bytes().split(b"\r\n")[:2]
    assert [b"X-Envelope-From: news@shop.example", b"X-Envelope-To: ada@example.com"] == head


def test_the_same_email_again_is_the_same_file(tmp_path):
    esp = DirectoryEsp(tmp_path)
    for _ in range(3):
        esp.send(an_email(), sender=SENDER, recipient=RECIPIENT)
    assert 1 == len(list(tmp_path.iterdir()))


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable) as caught:
        DirectoryEsp(tmp_path / "file").send(an_email(), sender=SENDER, recipient=RECIPIENT)
    assert "E406" == caught.value.code
    assert RECIPIENT not in str(caught.value)


def test_an_address_adds_no_header(tmp_path):
    DirectoryEsp(tmp_path).send(an_email(), sender="a@x\r\nX-Evil: 1", recipient="b@x\nX-Evil: 2")
    (path,) = tmp_path.iterdir()
    assert not any(line.startswith(b"X-Evil") for line in path.read_bytes().split(b"\r\n"))


@pytest.mark.parametrize(
    ("message_id", "name"),
    [
        ("<0f@shop.example>", "0f@shop.example.eml"),
        ("<../../etc/passwd@x>", "_.._etc_passwd@x.eml"),
        ("<" + "a" * 500 + "@x>", "a" * 180 + ".eml"),
    ],
)
def test_a_name_stays_in_the_folder(message_id, name):
    assert name == file_name(message_id)
