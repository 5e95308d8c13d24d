"""What was read of a schema registry, kept in a folder: while it is away, known schemas go on."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from penstock.ports.registry import Registered, Registry, Schema, Verdict

FORMAT: Final = 1


class _Kept(msgspec.Struct, array_like=True):
    """A file: its format, and the version of a subject or the schema of an id."""

    format: int
    found: Registered


_decoder = msgspec.json.Decoder(_Kept)


class FolderRegistry:
    """A registry whose schemas by id, and by subject and version, are read once and then kept in files.

    An id names one schema for ever, and so does a version. A file that does not read back, and a folder
    that can't be written to, only cost the question. All else is asked each time.

    Args:
        registry: Who is asked.
        folder: Of this registry alone; made if it is not there. Several processes may share it.
    """

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id."""
        name = f"id-{schema_id}.json"
        kept = self._load(name)
        if kept is not None:
            return kept.schema
        found = self._registry.schema(schema_id)
        if found is not None:
            self._keep(name, Registered(0, schema_id, found))
        return found

    def version(self, subject: str, version: int) -> Registered | None:
        """Return a version of a subject."""
        name = f"version-{blake2b(subject.encode(), digest_size=16).hexdigest()}-{version}.json"
        found = self._load(name)
        if found is None:
            found = self._registry.version(subject, version)
            if found is not None:
                self._keep(name, found)
        return found

    def versions(self, subject: str) -> list[Registered]:
        """Return all versions of a subject, oldest first."""
        return self._registry.versions(subject)

    def find(self, subject: str, schema: Schema) -> Registered | None:
        """Return the version of a subject that is this schema."""
        return self._registry.find(subject, schema)

    def judge(self, subject: str, schema: Schema) -> Verdict:
        """Return whether a schema may be registered under a subject."""
        return self._registry.judge(subject, schema)

    def register(self, subject: str, schema: Schema) -> int:
        """Register a schema as the newest version of a subject."""
        return self._registry.register(subject, schema)

    def compatibility(self, subject: str) -> str:
        """Return a subject's own compatibility."""
        return self._registry.compatibility(subject)

    def set_compatibility(self, subject: str, compatibility: str) -> None:
        """Set a subject's compatibility."""
        self._registry.set_compatibility(subject, compatibility)

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()

    def _load(self, name: str) -> Registered | None:
        try:
            kept = _decoder.decode((self._folder / name).read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return kept.found if kept.format == FORMAT else None

    def _keep(self, name: str, found: Registered) -> None:
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, written = tempfile.mkstemp(prefix="new-", dir=self._folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_Kept(FORMAT, found)))
                file.flush()
                os.fsync(file.fileno())
            Path(written).replace(self._folder / name)
