"""What is the key file's own: who may read it, damage, and what a kill leaves behind."""

import stat

import msgspec
import pytest

from penstock.adapters.keys.file import FileKeys
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.ports.keys import IDENTIFIER_KEY, TOKEN_KEY
from penstock.testing.conformance.keys import a_secret


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def with_a_key(path):
    FileKeys(path).put_if_absent(IDENTIFIER_KEY, a_secret(1))


def test_only_the_owner_may_read_the_file(path):
    with_a_key(path)
    FileKeys(path).put_if_absent(TOKEN_KEY, a_secret(2))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["keys.json", "keys.json.lock"] == sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_that_others_may_use_is_refused(path, mode):
    with_a_key(path)
    path.chmod(mode)
    with pytest.raises(Unavailable, match=f"E408.*mode {mode:04o}") as raised:
        FileKeys(path)
    assert f"chmod 600 {path}" in raised.value.fix
    path.chmod(0o400)
    assert a_secret(1) == FileKeys(path).get(IDENTIFIER_KEY)


def test_a_key_that_another_process_made_is_seen(path):
    ours = FileKeys(path)
    FileKeys(path).put_if_absent(TOKEN_KEY, a_secret(2))
    assert a_secret(2) == ours.get(TOKEN_KEY)


def test_a_flipped_bit_in_a_key_is_found(path):
    with_a_key(path)
    text = path.read_text()
    path.write_text(text.replace("0101", "0111", 1))
    with pytest.raises(DataCorrupt, match="E709: the key file does not match its checksum"):
        FileKeys(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format":1,"keys":{"identifier":"zz"},"check":""}',
     b'{"format":1,"keys":{},"check":"","more":1}', b'{"format":1,"keys":{"identifier":"00"},"check":""}'],
)  # fmt: skip
def test_what_is_no_key_file_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DataCorrupt, match="E709") as raised:
        FileKeys(path)
    assert "zz" not in str(raised.value)
    assert content == path.read_bytes()


def test_a_file_of_a_newer_version_is_refused(path):
    path.write_bytes(msgspec.json.encode({"format": 2, "keys": {}, "check": ""}))
    path.chmod(0o600)
    with pytest.raises(DataCorrupt, match="E706"):
        FileKeys(path)


def test_what_a_kill_left_in_mid_write_does_no_harm(path):
    with_a_key(path)
    path.with_name("keys.json.new").write_bytes(b'{"format":1,"ke')
    keys = FileKeys(path)
    assert a_secret(1) == keys.get(IDENTIFIER_KEY)
    keys.put_if_absent(TOKEN_KEY, a_secret(2))
    assert [IDENTIFIER_KEY, TOKEN_KEY] == keys.names()


def test_a_folder_that_is_not_there_is_said_to_be_unavailable(tmp_path):
    keys = FileKeys(tmp_path / "nowhere" / "keys.json")
    with pytest.raises(Unavailable, match="E405"):
        keys.put_if_absent(IDENTIFIER_KEY, a_secret(1))


def test_no_secret_is_shown_in_an_error(path):
    with_a_key(path)
    path.write_text(path.read_text().replace('"check"', '"chekc"'))
    with pytest.raises(DataCorrupt) as raised:
        FileKeys(path)
    assert a_secret(1).hex() not in str(raised.value)
    assert raised.value.__cause__ is None
