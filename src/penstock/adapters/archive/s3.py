"""The archive in a bucket of an S3 API: conditional puts, ranged reads, credentials as boto3 finds them."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock.core.errors import Conflict, DataCorrupt, Unavailable
from penstock.ports.archive import Stored

CONFIG: Final = Config(
    connect_timeout=10,
    read_timeout=60,
    retries={"max_attempts": 4, "mode": "standard"},
)
_TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_BEYOND: Final = frozenset({"InvalidRange", "416"})


class S3Archive:
    """Keeps objects under a prefix of a bucket; a name that is taken is never written over.

    Args:
        bucket: The bucket; it exists.
        prefix: Before every name, without slashes at its ends; may be empty.
        endpoint: The URL of an S3 API that is not AWS's; empty for AWS.
        region: Empty for the one that boto3 finds.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint: str = "", region: str = ""
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        with self._answers():
            self._client: Any = boto3.client(
                "s3", endpoint_url=endpoint or None, region_name=region or None, config=CONFIG
            )

    def put(self, name: str, data: bytes) -> None:
        """Keep an object, on the condition that none of its name is there."""
        try:
            with self._answers():
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + name, Body=data, IfNoneMatch="*"
                )
        except Conflict:
            if self.get(name) != data:
                raise

    def get(self, name: str) -> bytes:
        """Return an object."""
        with self._answers(name):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return answer["Body"].read()

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return a range of an object."""
        if size <= 0:
            return b""
        try:
            with self._answers(name):
                answer = self._client.get_object(
                    Bucket=self._bucket, Key=self._prefix + name,
                    Range=f"bytes={start}-{start + size - 1}",
                )  # fmt: skip
                return answer["Body"].read()
        except _Beyond:
            return b""

    def list(self, prefix: str) -> list[Stored]:
        """Return the objects whose names begin so, by name."""
        found: list[Stored] = []
        with self._answers():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                found += [
                    Stored(one["Key"][len(self._prefix) :], one["Size"])
                    for one in page.get("Contents", ())
                ]
        return sorted(found)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._answers():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextlib.contextmanager
    def _answers(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _TAKEN:
                raise Conflict("E501", "the archive holds other bytes under this name", where=name,
                               fix="archive under an empty prefix, or find out who else writes to this one") from error  # fmt: skip
            if code in _BEYOND:
                raise _Beyond from error
            if name and code in _ABSENT:
                raise DataCorrupt("E731", "the archive has no object of this name", where=name,
                                  fix="check the archive's place; restore the object from a copy") from error  # fmt: skip
            raise self._unavailable(code or type(error).__name__) from error
        except BotoCoreError as error:
            raise self._unavailable(type(error).__name__) from error

    def _unavailable(self, how: str) -> Unavailable:
        return Unavailable("E419", f"the archive did not answer ({how})", where=f"s3://{self._bucket}",
                           fix="check the bucket, the endpoint and the credentials of the environment")  # fmt: skip


class _Beyond(Exception):
    """A range begins beyond the object's end."""
