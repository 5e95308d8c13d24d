"""A worker process before it folds: what it needs, where that is, and which leaves are still wanted."""

from pathlib import Path

import pytest

from penstock.adapters.clock import SystemClock
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.compose import make_keys
from penstock.connectors import group_of
from penstock.core.errors import SettingsError, Unavailable
from penstock.core.record import Version
from penstock.flows.replay import EPOCHS, tell_epochs
from penstock.logs import LOG_IDENTITY, require_known_log
from penstock.project import Project, load_project
from penstock.stores import require_its_own
from penstock.workers import (
    WorkerParts,
    epoch_of,
    group_begins,
    group_of_workers,
    open_worker,
    require_workers,
    still_wanted,
)  # fmt: skip

ON_KAFKA = '[log]\nkind = "kafka"\n[log.kafka]\nbrokers = ["127.0.0.1:9"]\n[fold]\nby = "workers"\n'
ON_REDIS = '[store]\nkind = "redis"\n[store.redis]\nurl = "redis://127.0.0.1:9"\n'


class SharedLog(MemoryLog):
    """A log that others append to, of which little is known yet."""

    shared = True
    identity = "the log of before"


class ServerStore(MemoryStore):
    """A store that stands apart from its log."""

    remote = True


def a_project(folder: Path, *toml: str) -> Project:
    (folder / "penstock.toml").write_text("".join(toml))
    return load_project(folder)


def test_a_worker_that_lacks_a_file_of_the_data_folder_is_told_which_and_how_to_do_without(
    tmp_path: Path,
):
    with pytest.raises(Unavailable, match=r"(?s)E471.*`store.db`.*registers = true"):
        open_worker(a_project(tmp_path, ON_KAFKA))
    with pytest.raises(Unavailable, match=r"E471.*`suppressions.db`"):
        open_worker(a_project(tmp_path, ON_KAFKA, ON_REDIS))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("prefix", "group", "begins"),
    [("penstock.", "", "penstock"), ("shop.", "", "shop.penstock"), ("shop-", "", "shop-penstock"),
     ("shop.", "penstock", "penstock"), ("penstock.", "mine", "mine")],
)  # fmt: skip
def test_a_group_of_workers_is_called_by_the_prefix_of_the_topics(
    tmp_path: Path, prefix: str, group: str, begins: str
):
    on_kafka = ON_KAFKA.replace("[fold]", f'prefix = "{prefix}"\n[fold]\ngroup = "{group}"')
    project = a_project(tmp_path, on_kafka)
    assert begins == group_begins(project.settings)
    assert f"{begins}-default-1-3" == group_of_workers(project, 1, 3)


@pytest.mark.parametrize(
    ("prefix", "group", "named"),
    [("penstock.", "", "penstock-views"), ("shop.", "", "shop.penstock-views"), ("shop.", "mine", "mine")],
)  # fmt: skip
def test_connectors_of_two_projects_that_are_called_alike_share_no_group(
    tmp_path: Path, prefix: str, group: str, named: str
):
    connector = f"""
[sources.views]
kind = "server"
[connect.views]
topics = ["views"]
format = "segment-json"
group = "{group}"
"""
    on_kafka = ON_KAFKA.replace("[fold]", f'prefix = "{prefix}"\n[fold]')
    assert named == group_of(a_project(tmp_path, on_kafka, connector), "views")


def test_workers_do_not_write_into_their_own_memory(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"E207.*store.kind"):
        require_workers(a_project(tmp_path, ON_KAFKA, '[store]\nkind = "memory"\n'))
    require_workers(a_project(tmp_path, ON_KAFKA, ON_REDIS))


def test_a_worker_refuses_leaves_of_another_log():
    store = MemoryStore()
    require_known_log(SharedLog(SystemClock()), store)
    store.put_meta(LOG_IDENTITY, "another")
    with pytest.raises(SettingsError, match="E286"):
        require_known_log(SharedLog(SystemClock()), store)


def test_leaves_are_wanted_until_the_store_says_that_they_are_not(tmp_path: Path):
    store = MemoryStore()
    parts = WorkerParts(a_project(tmp_path), SharedLog(SystemClock()), store, MemorySuppressions())
    wanted = still_wanted(parts, 1)
    tell_epochs(store, {1: "a", 2: "b"})
    assert (wanted(), epoch_of(store, "b"), epoch_of(store, "c")) == (True, 2, None)
    store.put_meta(EPOCHS, "")  # emptied, and not told again yet
    assert wanted()
    tell_epochs(store, {2: "b"})
    assert not wanted()
    store.close()
    assert wanted()


def test_leaves_that_are_ahead_of_what_is_known_of_a_shared_log_stay():
    """The end of a log that others append to is known a moment late, and workers go on meanwhile."""
    store, keys = ServerStore(), MemoryKeys()
    make_keys(keys)
    store.write(1, [], partition=0, applied=Version(1, 5))
    require_its_own(store, SharedLog(SystemClock()), keys)
    assert Version(1, 5) == store.applied(1, 0)
    require_its_own(store, MemoryLog(SystemClock()), keys)
    assert [] == store.epochs()
