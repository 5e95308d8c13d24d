"""The manifest of a backup: what was written is read, and what was changed by anybody is not."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.backup import (
    MANIFEST_FORMAT,
    BackupFile,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from penstock.core.errors import DataCorrupt

MANIFEST = Manifest(
    format=MANIFEST_FORMAT, penstock="0.1.0", made_at="2026-11-25T10:00:00.000Z", project="shop", tenant="t",
    definitions=3, epoch=4, generation=1, heads=(10, 20), applied=(9, -1), sampled=7, seed=5,
    files=(BackupFile("keys.json", 3, "ab" * 32, 1), BackupFile("definitions/0001.zip", 0, "cd" * 32)),
)  # fmt: skip
RAW = encode_manifest(MANIFEST)


def code_of(raw: bytes) -> str:
    with pytest.raises(DataCorrupt) as caught:
        decode_manifest(raw, "there")
    assert "there" == caught.value.where
    return caught.value.code


def read_or_code(raw: bytes) -> Manifest | str:
    try:
        return msgspec.structs.replace(decode_manifest(raw, "there"), check="")
    except DataCorrupt as error:
        return error.code


def test_it_reads_back() -> None:
    read = decode_manifest(RAW, "there")
    assert MANIFEST == msgspec.structs.replace(read, check="")
    assert RAW == encode_manifest(read)
    assert 3 == read.total_bytes


def test_its_bytes_change_only_on_purpose(golden) -> None:
    golden("backup-manifest-v1.json", RAW)


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_or_says_the_same(place: int, flip: int) -> None:
    changed = bytearray(RAW)
    changed[place] ^= flip
    # A larger number in the format's place is a version to come, for all that can be known.
    assert read_or_code(bytes(changed)) in (MANIFEST, "E750", "E706")


@given(st.integers(0, len(RAW) - 2))
def test_a_manifest_that_was_cut_short_is_damaged(size: int) -> None:
    if RAW[:size].strip() != RAW.strip():
        assert "E750" == code_of(RAW[:size])


@given(st.binary(max_size=200))
def test_what_is_no_manifest_is_damaged(raw: bytes) -> None:
    assert "E750" == code_of(raw)


@pytest.mark.parametrize(
    "name",
    ["../keys.json", "/etc/passwd", "a/../../b.db", "", ".restore", "a//b.db", "a\\b", "a/b/c.db", "keys.json\n"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused_whoever_sealed_it(name: str) -> None:
    files = (BackupFile(name, 1, "ab" * 32),)
    assert "E750" == code_of(encode_manifest(msgspec.structs.replace(MANIFEST, files=files)))


def test_a_name_twice_a_length_below_zero_and_a_hash_that_is_none_are_refused() -> None:
    good = MANIFEST.files[0]
    for files in (
        (good, good),
        (msgspec.structs.replace(good, bytes=-1),),
        (msgspec.structs.replace(good, sha256="xyz"),),
    ):
        raw = encode_manifest(msgspec.structs.replace(MANIFEST, files=files))
        assert "E750" == code_of(raw)


def test_a_field_that_is_added_later_with_a_default_does_not_break_older_checks() -> None:
    """What `omit_defaults` is for: the check of version n is the same to n+1, whose structs have more."""

    class Later(Manifest, frozen=True, kw_only=True, omit_defaults=True):
        more: int = 0

    read = msgspec.json.decode(RAW, type=Later)
    assert msgspec.json.encode(MANIFEST) == msgspec.json.encode(msgspec.structs.replace(read, check=""))  # fmt: skip
