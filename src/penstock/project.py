"""Find and import a project's definitions; an error names the author's file and line."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.schema import EventType, Field
from penstock.core.consent.purpose import PERSONALISATION, ConsentRules
from penstock.core.decision.audience import Audience, audiences_by_name, check_audience
from penstock.core.decision.campaign import Campaign, parse_campaign
from penstock.core.decision.pace import parse_caps
from penstock.core.decision.predicate import Names
from penstock.core.decision.slot import Slot, check_slot, slots_by_name
from penstock.core.errors import DefinitionError, PenstockError
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.step import Rules
from penstock.dsl.events import FieldTable
from penstock.dsl.features import Profile, compile_plan
from penstock.settings import Settings, load_settings

MODULES = ("events", "features", "audiences", "slots")
"""The files of a project, in the order in which they may import one another."""


@dataclass(frozen=True)
class Project:
    """A user's project: its settings and everything its files define, checked against each other."""

    root: Path
    settings: Settings
    catalog: Catalog
    plan: Plan
    slots: dict[str, Slot]
    audiences: dict[str, Audience]
    campaigns: dict[str, Campaign]

    @property
    def data_dir(self) -> Path:
        """The folder of the log, the store, keys and decisions."""
        return self.root / self.settings.data_dir

    @property
    def fingerprint(self) -> str:
        """What the stored leaves depend on: if it changes, the store is built anew.

        The features, and all that the step goes by: purposes of traits, what silence means, limits.
        """
        rules = self.step_rules()
        purposes = {
            name: one for name, one in rules.trait_purposes.items() if one != PERSONALISATION
        }
        parts = [self.plan.fingerprint, sorted(purposes.items()), rules.consent.regime,
                 rules.consent.purposes, rules.leaf_bytes_max]  # fmt: skip
        return blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()

    def consent_rules(self) -> ConsentRules:
        """Return the consent rules of the settings."""
        consent = self.settings.consent
        return ConsentRules(
            regime=consent.regime,
            categories={name: tuple(purposes) for name, purposes in consent.categories.items()},
            gpc_denies=tuple(consent.gpc_denies),
        )

    def identity_rules(self) -> IdentityRules:
        """Return the identity rules of the settings."""
        identity = self.settings.identity
        return IdentityRules.with_overrides(
            limits=dict(identity.limits),
            blocked_values=tuple(identity.blocked_values),
            shared_anonymous=identity.shared_anonymous,
        )

    def trait_purposes(self) -> dict[str, str]:
        """Return the purpose of each declared trait."""
        return {name: field.privacy.purpose for name, field in self.catalog.traits.items()}

    def step_rules(self) -> Rules:
        """Return the rules of the step."""
        return Rules(
            self.consent_rules(), self.trait_purposes(), self.settings.store.leaf_bytes_max
        )


def load_project(root: Path) -> Project:
    """Read and check a project folder.

    Raises:
        SettingsError: `penstock.toml` is wrong (E2xx).
        DefinitionError: A definition is wrong (E1xx); the message names its file and line.
    """
    root = root.resolve()
    settings = load_settings(root / "penstock.toml")
    with _importable(root):
        modules = {name: _import(root, name) for name in MODULES if (root / f"{name}.py").exists()}
    catalog = _catalog(modules, settings)
    profiles = [
        value
        for value in _values(modules.get("features"))
        if isinstance(value, type) and issubclass(value, Profile) and value is not Profile
    ]
    plan = compile_plan(profiles, tz=settings.project.timezone)
    slots = slots_by_name(one for one in _values(modules.get("slots")) if isinstance(one, Slot))
    audiences = audiences_by_name(
        one for one in _values(modules.get("audiences")) if isinstance(one, Audience)
    )
    names = _names(root, settings, catalog, plan, slots, audiences)
    for slot in slots.values():
        check_slot(slot, names)
    for audience in audiences.values():
        check_audience(audience, names)
    campaigns = _campaigns(root, slots, names, settings)
    return Project(root, settings, catalog, plan, slots, audiences, campaigns)


def _names(
    root: Path, settings: Settings, catalog: Catalog, plan: Plan, slots: dict[str, Slot],
    audiences: dict[str, Audience],
) -> Names:  # fmt: skip
    topics = frozenset(settings.email.topics)
    return Names(
        features=frozenset(feature.name for feature in plan.features),
        traits=frozenset(catalog.traits),
        topics=topics or None,
        templates=frozenset(path.name.partition(".")[0] for path in (root / "content").glob("*.*")),
        events=frozenset(catalog.event_types),
        slots=frozenset(slots),
        audiences=frozenset(audiences),
        caps=frozenset(parse_caps(settings.email.caps)),
    )


def _catalog(modules: dict[str, ModuleType], settings: Settings) -> Catalog:
    events: list[EventType] = []
    tables: dict[str, dict[str, Field]] = {"traits": {}, "group_traits": {}, "items": {}}
    for value in _values(modules.get("events")):
        if isinstance(value, EventType):
            events.append(value)
        elif isinstance(value, FieldTable):
            tables[value.belongs_to].update(value)
    return Catalog(
        sorted(events, key=lambda one: one.name),
        tables["traits"],
        group_traits=tables["group_traits"],
        items=tables["items"],
        undeclared=settings.project.undeclared,
        default_currency=settings.project.currency,
    )


def _campaigns(
    root: Path, slots: dict[str, Slot], names: Names, settings: Settings
) -> dict[str, Campaign]:
    campaigns: dict[str, Campaign] = {}
    for path in sorted((root / "campaigns").glob("*.toml")):
        where = f"campaigns/{path.name}"
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DefinitionError("E180", f"the campaign cannot be read: {error.strerror}", where=where,
                                  fix="check what it is and who may read it") from error  # fmt: skip
        except UnicodeDecodeError as error:
            raise DefinitionError("E180", f"the campaign is not UTF-8 text, from byte {error.start} on",
                                  where=where, fix="save it as UTF-8") from error  # fmt: skip
        except tomllib.TOMLDecodeError as error:
            raise DefinitionError("E180", f"the campaign is not TOML: {error}", where=where,
                                  fix="mend the line named") from error  # fmt: skip
        raw.setdefault("holdout_share", settings.decision.holdout_share)
        raw.setdefault("cap", settings.email.cap)
        raw.setdefault("quiet_hours", settings.email.quiet_hours)
        campaigns[path.stem] = parse_campaign(
            raw, name=path.stem, slots=slots, names=names, where=where
        )
    return campaigns


def _values(module: ModuleType | None) -> list[Any]:
    return [] if module is None else list(vars(module).values())


def _import(root: Path, name: str) -> ModuleType:
    path = root / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a .py file always has a spec"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PenstockError as error:
        if not error.where:
            error.where = _place(error, root)
        raise
    except Exception as error:
        where = _place(error, root) or str(path)
        raise DefinitionError("E181", f"{name}.py does not load: {type(error).__name__}: {error}",
                              where=where, fix="mend the line named") from error  # fmt: skip
    return module


def _place(error: BaseException, root: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        # The file that does not parse is in no frame: only the files that import it are.
        path = Path(error.filename)
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        return f"{name}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(root):
            return f"{Path(frame.filename).relative_to(root)}:{frame.lineno}"
    return ""


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let the project's files import one another by name, and leave no trace of those names."""
    saved = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        # Files beside the known ones go too: another project may have its own of the same name.
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if name in MODULES or (file and Path(file).parent == root):
                del sys.modules[name]
        sys.modules.update(saved)
