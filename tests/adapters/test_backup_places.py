"""Where backups are kept: a backup is there as a whole or not at all, in a folder and in an archive."""

import pytest

from penstock.adapters.archive.folder import FolderArchive
from penstock.adapters.backup.folder import FolderBackup
from penstock.adapters.backup.objects import ObjectsBackup
from penstock.core.backup import MANIFEST_FILE, BackupFile
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable

FILES = {"keys.json": b"", "log.db": bytes(range(100)), "definitions/0001.zip": b"0123456789"}
PART_BYTES = 10


@pytest.fixture(params=["folder", "archive"])
def make(request, tmp_path):
    def place(name="b"):
        if request.param == "folder":
            return FolderBackup(tmp_path / "backups" / name)
        archive = FolderArchive(tmp_path / "bucket" / name)
        return ObjectsBackup(archive, f"bucket/{name}", tmp_path, part_bytes=PART_BYTES)

    return place


def fill(beside, files=FILES):
    for name, raw in files.items():
        (beside / name).parent.mkdir(exist_ok=True)
        (beside / name).write_bytes(raw)


def file_of(name, size):
    return BackupFile(name, size, "0" * 64)


def test_what_was_published_is_read_back(make):
    place = make()
    with place.making() as beside:
        assert [] == [*beside.iterdir()]
        fill(beside)
        place.publish(beside, b"manifest")
    assert not beside.exists()
    assert b"manifest" == make().manifest()
    for name, raw in FILES.items():
        assert raw == b"".join(make().read(file_of(name, len(raw))))


def test_nothing_is_there_before_it_is_published_or_if_it_never_is(make):
    place = make()
    with place.making() as beside:
        fill(beside)
    assert not beside.exists()
    with pytest.raises(DataCorrupt) as caught:
        place.manifest()
    assert "E750" == caught.value.code
    with place.making() as beside:
        fill(beside)
        place.publish(beside, b"manifest")


def test_what_a_killed_attempt_left_is_removed_by_the_next(make):
    with make().making() as beside:
        pass
    beside.mkdir()
    fill(beside)
    place = make()
    with place.making() as again:
        assert beside == again
        assert [] == [*again.iterdir()]
        place.publish(again, b"manifest")


def test_a_place_that_holds_something_is_refused(make):
    place = make()
    with place.making() as beside:
        place.publish(beside, b"manifest")
    with pytest.raises(SettingsError) as caught, make().making():
        pass
    assert "E240" == caught.value.code
    assert b"manifest" == place.manifest()


def test_two_do_not_make_one_at_once(make):
    with make().making():
        with pytest.raises(Unavailable) as caught, make().making():
            pass
        assert "E442" == caught.value.code


def test_a_file_that_is_not_there_is_named(make):
    place = make()
    with place.making() as beside:
        fill(beside)
        place.publish(beside, b"manifest")
    with pytest.raises(DataCorrupt) as caught:
        b"".join(place.read(file_of("store.db", 3)))
    assert "E751" == caught.value.code
    assert "`store.db`" in caught.value.what


def test_an_archive_that_a_cut_short_backup_left_things_in_is_no_backup_and_is_refused(tmp_path):
    archive = FolderArchive(tmp_path / "bucket")
    archive.put("log.db.0000", b"half")
    place = ObjectsBackup(archive, "bucket", tmp_path)
    with pytest.raises(SettingsError), place.making():
        pass
    with pytest.raises(DataCorrupt):
        place.manifest()


def test_an_archives_manifest_is_put_last(tmp_path):
    puts = []

    class Told(FolderArchive):
        def put(self, name, data):
            puts.append(name)
            super().put(name, data)

    place = ObjectsBackup(Told(tmp_path / "bucket"), "bucket", tmp_path, part_bytes=PART_BYTES)
    with place.making() as beside:
        fill(beside)
        place.publish(beside, b"manifest")
    assert MANIFEST_FILE == puts[-1]
    assert 1 + 1 + 1 + 10 == len(puts)


def test_parts_that_another_version_cut_otherwise_are_read(tmp_path):
    archive = FolderArchive(tmp_path / "bucket")
    with ObjectsBackup(archive, "b", tmp_path, part_bytes=7).making() as beside:
        fill(beside)
        ObjectsBackup(archive, "b", tmp_path, part_bytes=7).publish(beside, b"manifest")
    for name, raw in FILES.items():
        read = ObjectsBackup(archive, "b", tmp_path, part_bytes=1_000).read(file_of(name, len(raw)))
        assert raw == b"".join(read)


def test_only_its_owner_looks_into_a_folder(tmp_path):
    place = FolderBackup(tmp_path / "b")
    with place.making() as beside:
        assert 0o700 == beside.stat().st_mode & 0o777
        place.publish(beside, b"manifest")
    assert 0o700 == (tmp_path / "b").stat().st_mode & 0o777
    assert 0o600 == (tmp_path / "b" / MANIFEST_FILE).stat().st_mode & 0o777


def test_a_folder_that_can_not_be_made_does_not_answer(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as caught, FolderBackup(tmp_path / "file" / "b").making():
        pass
    assert "E441" == caught.value.code
