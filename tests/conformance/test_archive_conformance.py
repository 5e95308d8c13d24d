"""The archives that ship, against the suite of the port; S3 against a real HTTP server of its API."""

import boto3
import pytest

from penstock.adapters.archive.folder import FolderArchive
from penstock.adapters.archive.s3 import S3Archive
from penstock.core.errors import Unavailable
from penstock.testing.conformance.archive import ArchiveConformance


class TestFolderArchive(ArchiveConformance):
    def make(self, folder):
        return FolderArchive(folder / "archive")

    def test_a_put_that_was_cut_short_left_no_object(self, tmp_path):
        archive = self.make(tmp_path)
        archive.put("a/b", b"whole")
        (tmp_path / "archive" / "a" / ".c.part").write_bytes(b"hal")
        assert ["a/b"] == [one.name for one in archive.list("")]
        archive.put("a/c", b"half and more")
        assert b"half and more" == archive.get("a/c")

    def test_only_its_owner_looks_into_it(self, tmp_path):
        self.make(tmp_path).put("a/b", b"x")
        modes = [(tmp_path / "archive" / name).stat().st_mode & 0o777 for name in ("", "a", "a/b")]
        assert [0o700, 0o700, 0o600] == modes

    def test_a_place_that_is_no_folder_does_not_answer(self, tmp_path):
        (tmp_path / "archive").write_bytes(b"a file")
        with pytest.raises(Unavailable) as caught:
            self.make(tmp_path).put("a", b"x")
        assert "E419" == caught.value.code


@pytest.mark.slow
class TestS3Archive(ArchiveConformance):
    @pytest.fixture(autouse=True)
    def _bucket(self, s3, tmp_path):
        self.endpoint = s3
        client = boto3.client("s3", endpoint_url=s3)
        self.bucket = f"b{abs(hash(str(tmp_path))):x}"[:40]
        place = {"LocationConstraint": "eu-west-1"}
        client.create_bucket(Bucket=self.bucket, CreateBucketConfiguration=place)
        client.close()

    def make(self, folder):
        return S3Archive(self.bucket, "some/prefix", endpoint=self.endpoint)

    def test_a_bucket_that_is_not_there_does_not_answer(self):
        archive = S3Archive("nowhere", endpoint=self.endpoint)
        with pytest.raises(Unavailable) as caught:
            archive.list("")
        assert ("E419", "s3://nowhere") == (caught.value.code, caught.value.where)
        archive.close()
