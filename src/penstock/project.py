"""Find and import a project's definitions; an error names the author's file and line."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from penstock.adapters.accelerator.native import accelerate
from penstock.adapters.files import drop_scratch, new_scratch, sole_use
from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.schema import EventType, Field
from penstock.core.consent.purpose import PERSONALISATION, ConsentRules
from penstock.core.decision import sources
from penstock.core.decision.audience import Audience, audiences_by_name, check_audience
from penstock.core.decision.campaign import Campaign, parse_campaign
from penstock.core.decision.candidate import SourceKind
from penstock.core.decision.pace import NONE, parse_caps, parse_quiet_hours
from penstock.core.decision.predicate import Names, nearest
from penstock.core.decision.slot import Slot, check_slot, slots_by_name
from penstock.core.definitions.changes import Declared
from penstock.core.definitions.purposes import astray
from penstock.core.definitions.retention import outliving
from penstock.core.errors import DefinitionError, PenstockError
from penstock.core.feature.plan import Plan
from penstock.core.identity.identifier import IdentityRules
from penstock.core.step import Rules
from penstock.core.toml_lines import Places, lines_of
from penstock.dsl.events import FieldTable
from penstock.dsl.features import Profile, compile_plan
from penstock.settings import EmailSettings, Settings, load_settings

MODULES = ("events", "features", "audiences", "slots")
"""The files of a project, in the order in which they may import one another."""

SETTINGS_FILE = "definition-settings.json"
"""Among the files of a version: the settings that its definitions go by, and no secret."""

SETTINGS = "penstock.toml"

_FILE_AND_LINE = re.compile(r"[^ ]+\.(py|toml|liquid|mjml):\d+")
_FIELD = re.compile(r"(?:field|trait) `([^`]+)`")

FILES_MAX = 2_000
FILES_BYTES_MAX = 32 * 1024 * 1024
"""Of all files of a version together."""

LEFT_OUT = frozenset({"tests", "node_modules", "venv", "__pycache__"})
"""Folders that hold no definitions; those whose names begin with a dot are left out too."""


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

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What it was loaded from; see `files_of`."""

    kept: bool = False
    """Whether those are a version's kept files, and not what its folder holds now."""

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits of its files and of the settings they go by: equal for equal definitions."""
        return digest_of(self.files)

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
        return _consent_rules(self.settings)

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

    def declared(self) -> Declared:
        """Return what it defines, to be compared with what another version does."""
        rules = msgspec.json.decode(self.files.get(SETTINGS_FILE, b"{}"))
        return Declared(
            plan=self.plan, catalog=self.catalog, slots=self.slots, audiences=self.audiences,
            campaigns=self.campaigns,
            files={name: raw for name, raw in self.files.items() if name.startswith("content/")},
            rules={f"{section}.{name}": value for section, values in rules.items()
                   for name, value in values.items()},
            fingerprint=self.fingerprint,
        )  # fmt: skip

    def step_rules(self) -> Rules:
        """Return the rules of the step."""
        return Rules(
            self.consent_rules(), self.trait_purposes(), self.settings.store.leaf_bytes_max,
            accelerate() if self.settings.fold.accelerated else None,
        )  # fmt: skip


def load_project(
    root: Path, *, settings: Settings | None = None, faults: list[DefinitionError] | None = None,
    kept: bool = False,
) -> Project:  # fmt: skip
    """Read and check a project folder.

    Args:
        root: The folder.
        settings: Its settings; None reads `penstock.toml`.
        kept: Whether these are the files of a version that served already: the purposes of one from
            before they were checked are left as they are.
        faults: Takes what is wrong with slots, audiences and campaigns, which then are in the project
            all the same or, if they cannot be, left out of it. None raises the first fault.

    Raises:
        SettingsError: `penstock.toml` is wrong (E2xx).
        DefinitionError: A definition is wrong (E1xx); the message names its file and line.
    """
    root = root.resolve()
    settings = settings or load_settings(root / "penstock.toml")
    files = files_of(root, settings)
    with _importable(root) as own:
        modules = {name: _import(root, name) for name in MODULES if (root / f"{name}.py").exists()}
    places = _settings_places(root)
    with _placed(lambda error: _of_catalog(error, root, places)):
        catalog = _catalog(modules, settings)
    profiles = [
        value
        for value in _values(modules.get("features"))
        if isinstance(value, type) and issubclass(value, Profile) and value is not Profile
    ]
    with _placed(lambda _: places.of("project", "timezone")):
        plan = compile_plan(profiles, tz=settings.project.timezone)
    slots = slots_by_name(one for one in _values(modules.get("slots")) if isinstance(one, Slot))
    if own:
        slots = {name: msgspec.structs.replace(one, own=own) for name, one in slots.items()}
    audiences = audiences_by_name(
        one for one in _values(modules.get("audiences")) if isinstance(one, Audience)
    )
    for error in outliving(plan, catalog):
        if faults is None:
            raise error
        faults.append(error)
    _check_pace(settings.email, places)
    _noting(faults, lambda: _check_timezone(settings.email, catalog, places))
    names = _names(root, settings, catalog, plan, slots, audiences)
    if kept:
        names = msgspec.structs.replace(names, purposes=None)
    for error in astray(plan, catalog, names, lambda word: _line_of(root, "events.py", word)):
        if faults is None:
            raise error
        faults.append(error)
    for slot in slots.values():
        _noting(faults, lambda one=slot: check_slot(one, names))
    for audience in audiences.values():
        _noting(faults, lambda one=audience: check_audience(one, names))
    campaigns = _campaigns(root, slots, names, settings, faults)
    return Project(root, settings, catalog, plan, slots, audiences, campaigns, files, kept)


def _is_own(root: Path, kind: SourceKind) -> bool:
    """Return whether a candidate source stands in a project's files, and not in a package beside them."""
    module = sys.modules.get(getattr(kind.propose, "__module__", ""))
    file = getattr(module, "__file__", None)
    return file is not None and _is_file_of(root, Path(file))


def _is_file_of(root: Path, file: Path) -> bool:
    return file.is_relative_to(root) and "site-packages" not in file.parts


def _of_catalog(error: DefinitionError, root: Path, places: Places) -> str:
    """Return where what the catalog refuses stands: an event that is declared twice, or a setting."""
    event = re.search(r"event `([^`]+)`", error.what)
    if event is None:
        return places.of("project", "currency" if "currency" in error.what else "undeclared")
    lines = _lines_of(root, "events.py", event.group(1))
    return f"events.py:{lines[-1]}" if lines else "events.py"


def _check_pace(email: EmailSettings, places: Places) -> None:
    """Check the caps and quiet hours that campaigns start from, where they are written."""
    for name, text in email.caps.items():
        parse_caps({name: text}, places.of("email", "caps", name))
    parse_quiet_hours(email.quiet_hours, places.of("email", "quiet_hours"))
    if email.cap not in ("", NONE) and email.cap not in email.caps:
        raise DefinitionError("E166", f"`email.cap` names cap `{email.cap}`, which is not defined",
                              where=places.of("email", "cap"), fix="add it to email.caps")  # fmt: skip


def _check_timezone(email: EmailSettings, catalog: Catalog, places: Places) -> None:
    """Refuse a trait that nobody has: quiet hours would be the project's, for everybody."""
    name = email.timezone_trait
    chosen = name != EmailSettings().timezone_trait
    if chosen and name not in catalog.traits and catalog.traits_undeclared != "keep":
        raise DefinitionError("E167", f"`email.timezone_trait` names trait `{name}`, which is not declared",
                              where=places.of("email", "timezone_trait"),
                              fix=f"declare it in events.py{nearest(name, frozenset(catalog.traits))}")  # fmt: skip


def _noting(faults: list[DefinitionError] | None, work: Callable[[], object]) -> None:
    try:
        work()
    except DefinitionError as error:
        if faults is None:
            raise
        faults.append(error)


# -- a version's files


def files_of(root: Path, settings: Settings) -> dict[str, bytes]:
    """Return what a project's definitions are made of, by paths: to load them when it has changed.

    All Python files but tests, `content/`, `campaigns/`, and the settings that they go by.

    Raises:
        DefinitionError: They are too many or too large to keep, or one can't be read (E192).
    """
    data = (root / settings.data_dir).resolve()
    files: dict[str, bytes] = {SETTINGS_FILE: _definition_settings(settings)}
    size = 0
    for folder, below, names in os.walk(root):
        here = Path(folder)
        top = here.relative_to(root).parts[:1]
        below[:] = sorted(one for one in below if not one.startswith(".") and one not in LEFT_OUT
                          and (here / one).resolve() != data and not (here / one / "pyvenv.cfg").exists())  # fmt: skip
        for name in sorted(names):
            if not (name.endswith(".py") or top in (("content",), ("campaigns",))):
                continue
            path = here / name
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DefinitionError("E192", f"a file of the project can't be read: {error.strerror}",
                                      where=str(path.relative_to(root)), fix="check what it is and who may read it") from error  # fmt: skip
            files[path.relative_to(root).as_posix()] = content
            size += len(content)
            if len(files) > FILES_MAX or size > FILES_BYTES_MAX:
                raise DefinitionError("E192", "the project has too many files to keep its versions", where=str(here),
                                      fix=f"keep at most {FILES_MAX} Python, content and campaign files in its folder, of "
                                      f"{FILES_BYTES_MAX >> 20} MiB together; images belong elsewhere")  # fmt: skip
    return files


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return 32 hexadecimal digits: equal for equal files."""
    digest = blake2b(digest_size=16, person=b"definitions")
    for name, content in sorted(files.items()):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def load_version(
    files: Mapping[str, bytes], root: Path, settings: Settings
) -> tuple[Project, Path]:
    """Return a project as the kept files of a version say it is, and a folder that holds its content.

    Whoever asks removes the folder when the content has been read (`drop_scratch`). It is in the data
    folder: the next who opens that removes what a killed process left.

    Args:
        files: What `files_of` returned.
        root: The project's folder: where its data are, and what its paths are relative to.
        settings: The settings of today, for all that definitions do not depend on.

    Raises:
        DefinitionError: The files do not load with this version of Penstock (E1xx).
    """
    folder = new_scratch(root / settings.data_dir, "definitions")
    try:
        with sole_use(folder):
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            loaded = load_project(
                folder,
                settings=_with_definition_settings(settings, files[SETTINGS_FILE]),
                kept=True,
            )
    except BaseException:
        drop_scratch(folder)
        raise
    return replace(loaded, root=root.resolve(), files=files), folder


def _definition_settings(settings: Settings) -> bytes:
    plain = msgspec.to_builtins(settings)
    chosen = {section: plain[section] for section in ("consent", "identity")}
    if not chosen["consent"]["purposes"]:
        # The definitions of a project without purposes of its own are what they were before it could.
        del chosen["consent"]["purposes"]
    # What people are told of a plan; a source itself goes by `penstock.toml` as it is.
    bases = {name: one["basis"] for name, one in plain["sources"].items() if one["basis"]}
    chosen["sources"] = {"basis": bases}
    chosen["project"] = {
        name: plain["project"][name] for name in ("timezone", "currency", "undeclared")
    }
    chosen["store"] = {"leaf_bytes_max": plain["store"]["leaf_bytes_max"]}
    chosen["decision"] = {"holdout_share": plain["decision"]["holdout_share"]}
    chosen["email"] = {name: plain["email"][name] for name in ("topics", "cap", "quiet_hours")}
    return msgspec.json.encode(chosen, order="deterministic")


def _with_definition_settings(settings: Settings, raw: bytes) -> Settings:
    plain = msgspec.to_builtins(settings)
    plain["consent"]["purposes"] = []
    kept = msgspec.json.decode(raw)
    kept.pop("sources", None)
    for section, values in kept.items():
        # A setting that a later version no longer has is left behind.
        plain[section].update({name: one for name, one in values.items() if name in plain[section]})
    return msgspec.convert(plain, Settings)


def _consent_rules(settings: Settings) -> ConsentRules:
    consent = settings.consent
    return ConsentRules(
        regime=consent.regime,
        categories={name: tuple(purposes) for name, purposes in consent.categories.items()},
        gpc_denies=tuple(consent.gpc_denies),
        purposes=tuple(consent.purposes),
    )


def _names(
    root: Path, settings: Settings, catalog: Catalog, plan: Plan, slots: dict[str, Slot],
    audiences: dict[str, Audience],
) -> Names:  # fmt: skip
    topics = frozenset(settings.email.topics)
    return Names(
        features=frozenset(feature.name for feature in plan.features),
        traits=frozenset(catalog.traits),
        purposes=frozenset(_consent_rules(settings).purposes),
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
    root: Path, slots: dict[str, Slot], names: Names, settings: Settings,
    faults: list[DefinitionError] | None,
) -> dict[str, Campaign]:  # fmt: skip
    campaigns: dict[str, Campaign] = {}
    for path in sorted((root / "campaigns").glob("*.toml")):
        where = f"campaigns/{path.name}"
        try:
            text = path.read_text(encoding="utf-8")
            raw = tomllib.loads(text)
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
        try:
            campaigns[path.stem] = parse_campaign(
                raw, name=path.stem, slots=slots, names=names, where=where, lines=lines_of(text)
            )
        except DefinitionError as error:
            if faults is None:
                raise
            faults.append(error)
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
        error.where = _stands(error, root)
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


def _stands(error: PenstockError, root: Path) -> str:
    """Return where a declaration stands that is refused: file and line, and what it is of."""
    place = _place(error, root)
    if not place or _FILE_AND_LINE.match(error.where):
        return error.where or place
    file, _, line = place.rpartition(":")
    field = _FIELD.search(error.where) or _FIELD.search(error.what)
    if field is not None:
        # A declaration has many lines: that of the field is the one to look at.
        place = f"{file}:{_line_of_keyword(root / file, int(line), field.group(1))}"
    return f"{place}, {error.where}" if error.where else place


def _line_of_keyword(path: Path, line: int, name: str) -> int:
    """Return the line of an argument of the call that begins on a line; that line if it has none."""
    calls = [one for one in ast.walk(ast.parse(path.read_bytes()))
             if isinstance(one, ast.Call) and one.lineno <= line <= (one.end_lineno or one.lineno)]  # fmt: skip
    for call in sorted(calls, key=lambda one: one.lineno, reverse=True):
        for keyword in call.keywords:
            if keyword.arg == name:
                return keyword.lineno
            if isinstance(keyword.value, ast.Dict):
                for key in keyword.value.keys:
                    if isinstance(key, ast.Constant) and key.value == name:
                        return key.lineno
    return line


def _lines_of(root: Path, name: str, word: str) -> list[int]:
    """Return the lines on which a text stands by itself in a Python file."""
    path = root / name
    tree = ast.parse(path.read_bytes()) if path.exists() else ast.Module([], [])
    return sorted(
        one.lineno for one in ast.walk(tree) if isinstance(one, ast.Constant) and one.value == word
    )


def _line_of(root: Path, name: str, word: str) -> str:
    """Return `FILE:LINE` where a text first stands by itself in a Python file, else the file."""
    lines = _lines_of(root, name, word)
    return f"{name}:{lines[0]}" if lines else name


def _settings_places(root: Path) -> Places:
    """Return the lines of the settings; of a version's kept files only the name."""
    path = root / SETTINGS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return Places(SETTINGS, lines_of(text))


@contextmanager
def _placed(place: Callable[[DefinitionError], str]) -> Iterator[None]:
    """Give an error that has no place one."""
    try:
        yield
    except DefinitionError as error:
        error.where = error.where or place(error)
        raise


@contextmanager
def _importable(root: Path) -> Iterator[dict[str, SourceKind]]:
    """Let the project's files import one another by name, and leave no trace of those names.

    What it yields fills with the candidate sources that they register.
    """
    saved = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    before = set(sys.modules)
    written = sys.dont_write_bytecode
    # Compiled files are told apart by second and size: an edit is read again within the second too.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    own = sources.begin_loading(lambda kind: _is_own(root, kind))
    try:
        yield own
    finally:
        sources.end_loading()
        sys.dont_write_bytecode = written
        sys.path.remove(str(root))
        # Files beside the known ones go too: another project may have its own of the same name.
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if name in MODULES or (file and _is_file_of(root, Path(file))):
                del sys.modules[name]
        sys.modules.update(saved)
