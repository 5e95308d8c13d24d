"""A schema registry in memory: the port's contract in its plainest form."""

import json

from penstock.core.catalog.fields import event_type
from penstock.core.catalog.published import Published, breaks_of, declared_in
from penstock.core.errors import DefinitionError
from penstock.ports.registry import Registered, Schema, Verdict


class MemoryRegistry:
    """Keeps schemas in dictionaries; gone with the process. It compares schemas that Penstock made."""

    def __init__(self) -> None:
        self._ids: dict[Schema, int] = {}
        self._subjects: dict[str, list[Registered]] = {}
        self._compatibility: dict[str, str] = {}

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id."""
        return next((one for one, number in self._ids.items() if number == schema_id), None)

    def version(self, subject: str, version: int) -> Registered | None:
        """Return a version of a subject."""
        return next((one for one in self.versions(subject) if one.version == version), None)

    def versions(self, subject: str) -> list[Registered]:
        """Return all versions of a subject, oldest first."""
        return list(self._subjects.get(subject, ()))

    def find(self, subject: str, schema: Schema) -> Registered | None:
        """Return the version of a subject that is this schema."""
        return next((one for one in self.versions(subject) if one.schema == schema), None)

    def judge(self, subject: str, schema: Schema) -> Verdict:
        """Return whether a schema may be registered under a subject."""
        event = declared_in(schema.text) or event_type("unknown", 1, ())
        one = Published(event, subject, schema.kind, schema.text)
        texts = [registered.schema.text for registered in self.versions(subject)]
        breaks = breaks_of(one, texts, self.compatibility(subject) or "none")
        return Verdict(not breaks, tuple(f"{found.path} {found.what}" for found in breaks))

    def register(self, subject: str, schema: Schema) -> int:
        """Register a schema as the newest version of a subject."""
        standing = self.find(subject, schema)
        if standing is not None:
            return standing.schema_id
        if schema.kind != "PROTOBUF":
            try:
                json.loads(schema.text)
            except ValueError:
                raise DefinitionError("E199", "this is no schema", where=subject,
                                      fix="send a schema of the kind that you say it is") from None  # fmt: skip
        verdict = self.judge(subject, schema)
        if not verdict.fits:
            raise DefinitionError("E195", f"the schema does not fit those before: {'; '.join(verdict.reasons)}",
                                  where=subject, fix="keep what others go on sending or reading")  # fmt: skip
        schema_id = self._ids.setdefault(schema, len(self._ids) + 1)
        versions = self._subjects.setdefault(subject, [])
        versions.append(Registered(len(versions) + 1, schema_id, schema))
        return schema_id

    def compatibility(self, subject: str) -> str:
        """Return a subject's own compatibility."""
        return self._compatibility.get(subject, "")

    def set_compatibility(self, subject: str, compatibility: str) -> None:
        """Set a subject's compatibility."""
        self._compatibility[subject] = compatibility

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
