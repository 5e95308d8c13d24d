"""A project's archive: the place that is named becomes an adapter, and the log has a second tier."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from penstock.adapters.archive import frames
from penstock.adapters.archive.folder import FolderArchive
from penstock.core.errors import SettingsError
from penstock.flows.archiving import ArchivedLog
from penstock.flows.tiered import TieredLog
from penstock.logs import open_log_alone
from penstock.ports.archive import Archive
from penstock.ports.log import Log
from penstock.project import Project

BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_bucket(text: str) -> tuple[Archive, str]:
    """Open a prefix of a bucket; return it with its name without what is asked of it.

    Args:
        text: `s3://BUCKET/PREFIX`; `?endpoint=…&region=…` name an S3 API that is not AWS's.

    Raises:
        SettingsError: It is no such place (E246), or S3 needs an extra that is not installed (E245).
    """
    url = urlsplit(text)
    asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
    prefix = url.path.strip("/")
    known = (
        url.scheme == "s3"
        and BUCKET.fullmatch(url.netloc)
        and not asked.keys() - {"endpoint", "region"}
    )
    if not known or not prefix:
        raise SettingsError("E246", "this is no place for a backup or an archive", where=text.partition("?")[0],
                            fix="name a folder, or `s3://BUCKET/PREFIX`")  # fmt: skip
    try:
        from penstock.adapters.archive.s3 import S3Archive  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E245", "S3 needs an extra that is not installed", where="s3",
                            fix="pip install 'penstock[s3]'") from error  # fmt: skip
    archive = S3Archive(url.netloc, prefix, endpoint=asked.get("endpoint", ""), region=asked.get("region", ""))  # fmt: skip
    return archive, f"s3://{url.netloc}/{prefix}"


def make_archived_log(project: Project, root: Path | None = None) -> ArchivedLog | None:
    """Return the project's log in its archive, or None if it has no archive.

    Args:
        project: The project.
        root: The folder that the archive's place is relative to, if it is not the project's.

    Raises:
        SettingsError: The place is none (E246), needs an extra (E245), or the log is in memory (E207).
    """
    place = project.settings.archive.place
    if not place:
        return None
    if project.settings.log.kind == "memory":
        raise SettingsError("E207", "a log in memory has no archive", where="archive.place",
                            fix='remove it, or set log.kind to "sqlite"')  # fmt: skip
    archive = (
        open_bucket(place)[0] if "://" in place else FolderArchive((root or project.root) / place)
    )
    tenant = project.settings.project.tenant
    return ArchivedLog(archive, tenant, pack=frames.pack, unpack=frames.unpack)


@contextmanager
def open_log_beside(
    project: Project, *, path: Path | None = None, root: Path | None = None
) -> Iterator[Log]:
    """Open a project's log for reading only, beside the process that owns it, with what is in its archive.

    Args:
        project: The project.
        path: The file, if it is not the project's own, such as a copy of it.
        root: The folder that the archive's place is relative to, if it is not the project's.

    Raises:
        Unavailable: It can't be opened or reached (E401).
        DataCorrupt: It is damaged or newer (E706, E707).
        SettingsError: The archive's place is none (E246), or needs an extra (E245); or a log on Kafka
            can't be opened (E280, E281, E282, E283, E287).
    """
    with ExitStack() as opened:
        log = open_log_alone(project, path)
        opened.callback(log.close)
        archived = make_archived_log(project, root)
        if archived is not None:
            opened.callback(archived.archive.close)
        yield log if archived is None else TieredLog(log, archived)
