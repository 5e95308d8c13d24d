"""The manifest of a backup: which files it has, what they held when they were taken, and its bytes."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

import msgspec

from penstock.core.errors import DataCorrupt

MANIFEST_FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9]+)?(/[a-z0-9][a-z0-9_-]*\.[a-z0-9]+)?")
"""A file, or a file in one folder. Nothing that is written elsewhere, whoever made the manifest."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class BackupFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of a backup.

    Attributes:
        name: Its path in the data folder, such as `log.db` or `definitions/0001.zip`.
        bytes: Its length.
        sha256: Of its bytes, in hexadecimal digits.
        format: Of what it holds; 0 if that says so itself.
    """

    name: str
    bytes: int
    sha256: str
    format: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backup says of itself. Fields are only added, with defaults; version n reads n-1.

    Attributes:
        format: Of the manifest.
        penstock: The version that made the backup.
        made_at: The instant that its files were held still, ISO 8601 in UTC.
        project: The project's name.
        tenant: Part of every key in its files.
        definitions: The number of the version that serves; 0 before the first.
        epoch: The set of leaves that serves; 0 before the first.
        generation: The log's.
        heads: By partition, the offset that the next record will get.
        applied: By partition, the last offset that the leaves cover, -1 for none; below its head.
        sampled: How many leaves were refolded from the log and found equal, byte for byte.
        seed: What chose them.
        files: In the order in which they are put back: the key table first.
        check: The SHA-256 of all the rest.
    """

    format: int
    penstock: str
    made_at: str
    project: str
    tenant: str
    definitions: int
    epoch: int
    generation: int
    heads: tuple[int, ...]
    applied: tuple[int, ...]
    sampled: int
    seed: int
    files: tuple[BackupFile, ...]
    check: str = ""

    @property
    def total_bytes(self) -> int:
        """The bytes of all files together."""
        return sum(file.bytes for file in self.files)


class _Format(msgspec.Struct):
    format: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Return a manifest's bytes, with its check."""
    sealed = msgspec.structs.replace(manifest, check=_check(manifest))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Return the manifest of its bytes.

    Args:
        raw: What `encode_manifest` returned.
        where: The backup, for messages.

    Raises:
        DataCorrupt: They do not read back (E750), or a newer version wrote them (E706).
    """
    try:
        found = msgspec.json.decode(raw, type=_Format).format
        if found > MANIFEST_FORMAT:
            raise DataCorrupt("E706", f"the backup has format {found}; this version reads up to {MANIFEST_FORMAT}",
                              where=where, fix="upgrade Penstock")  # fmt: skip
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(where) from error
    names = [file.name for file in manifest.files]
    good = (
        manifest.check == _check(manifest)
        and len(names) == len(set(names))
        and all(_NAME.fullmatch(name) for name in names)
        and all(_SHA256.fullmatch(file.sha256) and file.bytes >= 0 for file in manifest.files)
    )
    if not good:
        raise _damaged(where)
    return manifest


def _check(manifest: Manifest) -> str:
    return sha256(msgspec.json.encode(msgspec.structs.replace(manifest, check=""))).hexdigest()


def _damaged(where: str) -> DataCorrupt:
    return DataCorrupt("E750", f"`{MANIFEST_FILE}` of the backup does not read back", where=where,
                       fix="use another backup; what a damaged manifest lists is not to be trusted")  # fmt: skip
