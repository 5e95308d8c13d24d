"""A project's data folder as a backup, and back: what is in it, in which order, and how it is verified."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from penstock import __version__
from penstock.adapters.backup.cut import check_file, cut
from penstock.adapters.backup.data_folder import (
    arriving,
    put_in_place,
    require_whole,
    verified_manifest,
)
from penstock.adapters.backup.folder import FolderBackup
from penstock.adapters.backup.objects import ObjectsBackup
from penstock.adapters.decisions.sqlite import KIND as DECISIONS
from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.files import clear_scratch, scratch, sync_folder, write_new
from penstock.adapters.keys.file import KEYS_FORMAT, FileKeys
from penstock.adapters.log.sqlite import KIND as LOG
from penstock.adapters.sqlite import FileKind
from penstock.adapters.store.sqlite import KIND as STORE
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.sqlite import KIND as SUPPRESSIONS
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.adapters.versions.folder import FolderVersions
from penstock.archives import open_log_beside
from penstock.candidates import serving_of
from penstock.core.backup import (
    MANIFEST_FILE,
    MANIFEST_FORMAT,
    BackupFile,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable
from penstock.core.step import Step
from penstock.core.time import format_instant
from penstock.flows.refold import SAMPLE_LEAVES, refold, reread, sample
from penstock.flows.replay import LIVE_EPOCH, covered_offsets, fingerprint_name
from penstock.logs import require_in_folder
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import SETTINGS_FILE, Project, load_project
from penstock.settings import load_settings

KINDS: Final[dict[str, FileKind]] = {
    "store.db": STORE,
    "decisions.db": DECISIONS,
    "suppressions.db": SUPPRESSIONS,
    "log.db": LOG,
}
"""Those with the longest transactions first: in this order they are asked to stand still."""

KEYS: Final = "keys.json"
DEFINITIONS: Final = "definitions"
SMALL: Final = (KEYS, f"{DEFINITIONS}/versions.json", f"{DEFINITIONS}/[0-9]*.zip")
PROJECT: Final = "project.zip"
"""`penstock.toml` and the project's files, for a machine that has neither."""

PUT_BACK: Final = (KEYS, "suppressions.db", "log.db", "store.db", "decisions.db")
"""What has to be there before what depends on it; the rest follows."""

SETTINGS: Final = "penstock.toml"


Place = FolderBackup | ObjectsBackup
"""Where one backup is, or is to be."""


class Sampling(NamedTuple):
    """Which leaves are refolded: how many, and the seed that chooses them."""

    leaves: int = SAMPLE_LEAVES
    seed: int = 0


class Progress(NamedTuple):
    """Told what is about to be done, with its size in bytes, and how many more of them are done."""

    begin: Callable[[str, int], None] = lambda _, __: None
    advance: Callable[[int], None] = lambda _: None


class Merged(NamedTuple):
    """What came from later files that were named: entries of the register, and decisions that are new."""

    suppressions: int = 0
    decisions: int = 0


class Restored(NamedTuple):
    """What a restore did."""

    manifest: Manifest
    project_written: bool
    """Whether the project's files came from the backup too."""
    merged: Merged


# -- making one


def make_backup(
    project: Project, place: Place, *, sampling: Sampling, clock: Clock, progress: Progress
) -> Manifest:
    """Copy a project's data folder as it is at one instant, verify the copy, and make it a backup.

    Args:
        project: Whose data folder; a process may go on writing to it.
        place: Where the backup is to be.
        sampling: Which leaves of the copy are refolded from its log.
        clock: Says when.
        progress: Told how far it is.

    Raises:
        SettingsError: There is nothing to back up (E241), the log is elsewhere (E284), something at the place already (E240), or a
            restore into the data folder was cut short (E243).
        Unavailable: The files could not be held still (E440), or what is read or written failed (E441).
        DataCorrupt: The copy does not read back, or its leaves are not what its log folds to (E752).
    """
    require_in_folder(
        project, "a backup of the folder would hold leaves without the records that they are of",
        "keep copies of `keys.json` and `suppressions.db`, and archive the log: `archive.place`",
    )  # fmt: skip
    if project.settings.store.kind == "redis":
        raise SettingsError("E241", "leaves are on Redis, and a backup of the folder would be without them", where="store.kind",
                            fix="keep copies of `keys.json`, archive the log (`archive.place`), and let Redis make snapshots of its "
                            "own: what it lacks of leaves is made again from the log")  # fmt: skip
    if project.settings.log.kind != "sqlite" or project.settings.store.kind != "sqlite":
        raise SettingsError("E241", "there is nothing to back up: the log or the store is in memory",
                            where="log.kind", fix='set log.kind and store.kind to "sqlite"')  # fmt: skip
    require_whole(project.data_dir)
    with place.making() as beside:
        with cut(project.data_dir, KINDS, SMALL) as held:
            made_at = format_instant(clock.now_ms())
            if KEYS not in held.small:
                raise SettingsError("E241", "there is nothing to back up: the key table is not there",
                                    where=str(project.data_dir / KEYS), fix="restore it from its backup first")  # fmt: skip
            # The key table first: whatever is in the folder when this is cut short, its keys are.
            for name, raw in {**held.small, PROJECT: _project_files(project)}.items():
                (beside / name).parent.mkdir(mode=0o700, exist_ok=True)
                write_new(beside / name, iter([raw]))
            progress.begin("copying", sum(map(held.size, KINDS)))
            for name in KINDS:
                held.copy(name, beside / name, progress.advance)
            formats = {KEYS: KEYS_FORMAT, **{name: held.format(name) for name in KINDS}}
        found = _examine(beside, project, project.root, sampling, progress)
        manifest = Manifest(
            format=MANIFEST_FORMAT, penstock=__version__, made_at=made_at,
            project=project.settings.project.name, tenant=project.settings.project.tenant,
            definitions=found.definitions, epoch=found.epoch, generation=found.generation,
            heads=found.heads, applied=found.applied, sampled=found.sampled, seed=sampling.seed,
            files=_files(beside, formats, progress),
        )  # fmt: skip
        place.publish(beside, encode_manifest(manifest))
    return manifest


def _project_files(project: Project) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        files = {name: raw for name, raw in project.files.items() if name != SETTINGS_FILE}
        files[SETTINGS] = (project.root / SETTINGS).read_bytes()
        for name, raw in sorted(files.items()):
            archive.writestr(name, raw)
    return packed.getvalue()


def _files(folder: Path, formats: dict[str, int], progress: Progress) -> tuple[BackupFile, ...]:
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size
             for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip
    progress.begin("hashing", sum(sizes.values()))
    found: list[BackupFile] = []
    for name in [*PUT_BACK, *(name for name in sizes if name not in PUT_BACK)]:
        digest = sha256()
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                progress.advance(len(chunk))
        found.append(BackupFile(name, sizes[name], digest.hexdigest(), formats.get(name, 0)))
    return tuple(found)


# -- verifying one


class _Found(NamedTuple):
    """What a folder of a backup's files holds; as in its manifest."""

    definitions: int
    epoch: int
    generation: int
    heads: tuple[int, ...]
    applied: tuple[int, ...]
    sampled: int


def verify_backup(
    place: Place, *, sampling: Sampling, progress: Progress, beside: Path,
    archive_root: Path | None = None,
) -> Manifest:  # fmt: skip
    """Fetch a backup, compare every file with its manifest, read its log back, and refold leaves.

    Returns its manifest, with the leaves that were refolded now.

    It goes by the settings and definitions in the backup itself, and needs room in `beside` for a copy
    of it. A folder that they name as the archive is relative to `archive_root`.

    Raises:
        DataCorrupt: It is none (E750), not whole or damaged (E751), newer (E706), or its leaves are not
            what its log folds to (E752).
    """
    raw = place.manifest()
    manifest = _readable(raw, place)
    clear_scratch(beside)
    with scratch(beside, "verify") as folder:
        data, root = folder / "data", folder / "project"
        with _writing(folder):
            data.mkdir(mode=0o700)
            _fetch(place, manifest, data, progress)
            _unpack(data / PROJECT, root)
        found = _examine(data, load_project(root), archive_root or root, sampling, progress)
    said = (manifest.generation, manifest.heads, manifest.applied, manifest.epoch)
    if said != (found.generation, found.heads, found.applied, found.epoch):
        raise DataCorrupt("E751", "the files of the backup are not those that its manifest describes",
                          where=place.where, fix="use another backup")  # fmt: skip
    return msgspec.structs.replace(manifest, sampled=found.sampled, seed=sampling.seed)


def _examine(
    folder: Path, project: Project, root: Path, sampling: Sampling, progress: Progress
) -> _Found:
    """Read a backup's files back as the engine would, and refold a sample of its leaves.

    Leaves that another version of Penstock made are not refolded; the engine makes them anew. What
    the log was truncated of is read from the archive, whose place is relative to `root`.
    """
    for name, kind in KINDS.items():
        check_file(folder / name, kind)
    FileKeys(folder / KEYS).names()
    versions = FolderVersions(folder / DEFINITIONS)
    active = versions.load().active
    with _opened(folder, project, root) as (log, store):
        epoch = int(store.get_meta(LIVE_EPOCH) or 0)
        heads = tuple(log.head(partition) for partition in range(log.partitions))
        applied = tuple(covered_offsets(log, store, epoch))
        for partition, (end, head) in enumerate(zip(applied, heads, strict=True)):
            if end >= head:
                raise DataCorrupt("E752", f"the leaves cover offset {end} of partition {partition}, and the log ends "
                                  f"before {head}", fix="make another backup")  # fmt: skip
        serving = serving_of(project, versions)
        same = bool(epoch) and store.get_meta(fingerprint_name(epoch)) == serving.fingerprint
        leaves = sample(store, epoch, sampling.leaves, sampling.seed) if same else {}
        progress.begin("reading the log back", (folder / "log.db").stat().st_size)
        step = Step(serving.plan, serving.step_rules())
        refold(reread(log, leaves), log, store, step, epoch, leaves)
        progress.advance((folder / "log.db").stat().st_size)
        number = active.number if active is not None else 0
        return _Found(number, epoch, log.generation, heads, applied, len(leaves))


@contextmanager
def _opened(folder: Path, project: Project, root: Path) -> Iterator[tuple[Log, Store]]:
    """Open a backup's log and store, and leave nothing beside them; the archive has what the log lacks."""
    with ExitStack() as stack:
        for name in KINDS:
            for suffix in ("-wal", "-shm"):
                stack.callback((folder / f"{name}{suffix}").unlink, missing_ok=True)
        log = stack.enter_context(open_log_beside(project, path=folder / "log.db", root=root))
        tenant = project.settings.project.tenant
        store = SqliteStore(folder / "store.db", tenant=tenant, read_only=True)
        stack.callback(store.close)
        yield log, store


def _readable(raw: bytes, place: Place) -> Manifest:
    """Return a manifest whose files this version reads."""
    manifest = decode_manifest(raw, place.where)
    known = {KEYS: KEYS_FORMAT, **{name: kind.format for name, kind in KINDS.items()}}
    for file in manifest.files:
        if file.format > known.get(file.name, 0):
            raise DataCorrupt("E706", f"`{file.name}` of the backup has format {file.format}, newer than this version reads",
                              where=place.where, fix=f"install Penstock {manifest.penstock} or newer")  # fmt: skip
    if missing := sorted({KEYS, PROJECT, *KINDS} - {file.name for file in manifest.files}):
        raise DataCorrupt("E750", f"the backup does not list `{missing[0]}`", where=place.where,
                          fix="use another backup")  # fmt: skip
    return manifest


def _fetch(place: Place, manifest: Manifest, to: Path, progress: Progress) -> None:
    """Copy a backup's files into a folder; none that is not as its manifest says stays there."""
    progress.begin("fetching and verifying", manifest.total_bytes)
    for file in manifest.files:
        (to / file.name).parent.mkdir(mode=0o700, exist_ok=True)
        write_new(to / file.name, _verified(place, file, progress))


def fetch_log(place: Place, to: Path, progress: Progress) -> None:
    """Copy a backup's log into a file that is not there yet.

    Raises:
        Unavailable: It could not be read or written (E441).
        DataCorrupt: The backup is none (E750), not whole or damaged (E751), or newer (E706).
    """
    manifest = _readable(place.manifest(), place)
    file = next(file for file in manifest.files if file.name == "log.db")
    with _writing(to.parent):
        write_new(to, _verified(place, file, progress))


def _verified(place: Place, file: BackupFile, progress: Progress) -> Iterator[bytes]:
    digest = sha256()
    size = 0
    for chunk in place.read(file):
        digest.update(chunk)
        size += len(chunk)
        if size > file.bytes:
            break
        yield chunk
        progress.advance(len(chunk))
    if size != file.bytes or digest.hexdigest() != file.sha256:
        how = "has another length" if size != file.bytes else "does not match its SHA-256"
        raise DataCorrupt("E751", f"`{file.name}` of the backup {how}", where=place.where,
                          fix="use another backup: this one is damaged")  # fmt: skip


# -- putting one back


def restore(place: Place, root: Path, *, later: Path | None = None, progress: Progress) -> Restored:
    """Put a backup back: all of it is verified before anything is put in its place.

    A restore that was cut short leaves a data folder that nothing opens; the same again goes on.

    Args:
        place: Where the backup is.
        root: The project's folder; if it has no `penstock.toml`, the project's files come back too.
        later: A data folder or a backup's that is later, or one of its files: what its register of
            suppressions and its decision store know is merged in.
        progress: Told how far it is.

    Raises:
        SettingsError: There is something in its place already (E242), or it is another tenant's (E244), or there
            is nothing to merge (E247).
        Unavailable: What it needs could not be read or written (E441).
        DataCorrupt: The backup is none (E750), not whole or damaged (E751), or newer (E706).
    """
    raw = place.manifest()
    manifest = _readable(raw, place)
    with _writing(root), _unpacking(root) as files:
        packed = next(file for file in manifest.files if file.name == PROJECT)
        write_new(files / PROJECT, _verified(place, packed, Progress()))
        written = not (root / SETTINGS).exists()
        if written:
            _unpack(files / PROJECT, files / "project")
            _require_free(files / "project", root)
        settings = load_settings((files / "project" if written else root) / SETTINGS)
        if settings.project.tenant != manifest.tenant:
            raise SettingsError("E244", "the backup is of another tenant than this project", where="project.tenant",
                                fix="restore it into its own project, or into an empty folder")  # fmt: skip
        data = root / settings.data_dir
        with arriving(data) as beside:
            merged = _arrive(place, manifest, raw, data, beside, later=later, progress=progress)
            if written:
                # Before the data, which is what says that a restore is done.
                _put_project(files / "project", root)
            put_in_place(data, [file.name for file in manifest.files if file.name != PROJECT])
    return Restored(manifest, written, merged)


@contextmanager
def _unpacking(root: Path) -> Iterator[Path]:
    """Give a folder inside the project's for what the backup has of it; a root that stays empty goes."""
    clear_scratch(root)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with scratch(root, "project") as files:
            yield files
    finally:
        if not any(root.iterdir()):
            root.rmdir()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say what a failure to write into a folder means."""
    try:
        yield
    except OSError as error:
        raise Unavailable("E441", f"what is in the backup could not be written ({error.strerror})",
                          where=str(error.filename or folder), fix="make room there, or check who may write to it") from error  # fmt: skip


def _arrive(
    place: Place, manifest: Manifest, raw: bytes, data: Path, beside: Path, *, later: Path | None,
    progress: Progress,
) -> Merged:  # fmt: skip
    """Gather what is to be put in place, unless that was done before; return what was merged."""
    merged = Merged()
    begun = verified_manifest(data, MANIFEST_FILE)
    if begun is None:
        _fetch(place, manifest, beside, progress)
        if later is not None:
            merged = _merge(later, beside, manifest.tenant)
        write_new(beside / MANIFEST_FILE, iter([raw]))
    elif begun != raw:
        raise SettingsError("E242", "a restore of another backup was cut short here", where=str(data),
                            fix="run that restore again, or move the data folder away")  # fmt: skip
    return merged


def _merge(later: Path, into: Path, tenant: str) -> Merged:
    paths = {path.name: path for path in ([*later.glob("*.db")] if later.is_dir() else [later])}
    suppressions, decisions = paths.get("suppressions.db"), paths.get("decisions.db")
    if suppressions is None and decisions is None:
        raise SettingsError("E247", "there is nothing to merge: no register of suppressions and no decision store",
                            where=str(later), fix="name the data folder that was lost or a later backup, or its "
                            "`suppressions.db` or `decisions.db`")  # fmt: skip
    merged = Merged()
    if suppressions is not None:
        register = SqliteSuppressions(into / "suppressions.db", tenant=tenant)
        try:
            merged = merged._replace(suppressions=register.merge_file(suppressions))
        finally:
            register.close()
    if decisions is not None:
        store = SqliteDecisions(into / "decisions.db")
        try:
            merged = merged._replace(decisions=store.merge_file(decisions))
        finally:
            store.close()
    return merged


def _unpack(packed: Path, to: Path) -> None:
    """Unpack the project's files; `zipfile` writes nothing outside the folder."""
    to.mkdir(mode=0o700)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(to)


def _require_free(files: Path, root: Path) -> None:
    for path in sorted(files.rglob("*")):
        there = root / path.relative_to(files)
        if path.is_file() and there.exists() and there.read_bytes() != path.read_bytes():
            raise SettingsError("E242", "a file of the project is there already and differs, and a restore overwrites "
                                "nothing", where=str(there), fix="restore into an empty folder, or into the whole project")  # fmt: skip


def _put_project(files: Path, root: Path) -> None:
    """Copy the project's files, the settings last: with them it is a project."""
    paths = [path for path in files.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: (path.name == SETTINGS, path)):
        there = root / path.relative_to(files)
        there.parent.mkdir(parents=True, exist_ok=True)
        if not there.exists():
            beside = there.with_name(f".{there.name}.part")
            beside.unlink(missing_ok=True)
            write_new(beside, iter([path.read_bytes()]))
            beside.rename(there)
            sync_folder(there.parent)
