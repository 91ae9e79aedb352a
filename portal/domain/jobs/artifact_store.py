"""Where artifacts lie: in a folder, or in an S3-compatible store. What they are of stands in the database."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import BoundedSemaphore
from typing import IO, TYPE_CHECKING, BinaryIO

from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from portal.config import Settings
from portal.database import now
from portal.domain.errors import NotFound, StoreUnreachable, TooLarge

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore.store import S3Config

log = logging.getLogger(__name__)

PART = 8 * 1024 * 1024  # bytes that are sent or fetched at once, and that lie in memory meanwhile
AT_ONCE = 2  # parts of one file under way
MOST_PARTS = 10_000  # of one file, in S3
LISTED = 1000
_KEY = re.compile(r"[0-9a-f]{16}/\d{4}/\d\d/\d\d/[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that lies in the store whole: `size` in bytes."""

    key: str
    size: int
    sha256: bytes


class Incoming:
    """A file on its way in, in a nameless file of the spool folder: it goes with the process that wrote it.

    Only when it is here whole it goes into the store, so that a half upload never lies there.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file, self.limit = file, limit
        self.size = 0
        self._digest = hashlib.sha256()

    def write(self, data: bytes | bytearray) -> None:
        """Take the next piece. Raises TooLarge once the limit is passed, StoreUnreachable when the disk is full."""
        self.size += len(data)
        if self.size > self.limit:
            raise TooLarge(
                f"The artifact is larger than the {self.limit} bytes that this portal takes. Keep fewer files, or "
                "ask an administrator for a larger PORTAL_ARTIFACT_LIMIT."
            )
        self._digest.update(data)
        with _told("there is no room for an upload"):
            self.file.write(data)

    @property
    def sha256(self) -> bytes:
        return self._digest.digest()


class ArtifactStore:
    """The store of one portal. Every method raises StoreUnreachable when it does not answer."""

    def __init__(self, settings: Settings) -> None:
        """The store that the settings name. Nothing is asked of it yet, and no folder is made."""
        self._settings = settings
        self._spool = settings.data_dir / "incoming"
        self._folder: Path | None = None
        if not settings.artifacts.startswith("s3://"):
            self._folder = Path(settings.artifacts) if settings.artifacts else settings.data_dir / "artifacts"
        # One thread stays free, for whoever else asks something while uploads come in slowly.
        self._rooms = BoundedSemaphore(max(1, settings.threads - 1))

    @cached_property
    def _store(self) -> LocalStore | S3Store:
        if self._folder is None:
            return _bucket(self._settings)
        with _told("the folder of the artifacts cannot be used"):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return LocalStore(self._folder, automatic_cleanup=True)

    @contextmanager
    def receive(self, limit: int) -> Iterator[Incoming]:
        """Room for one file of at most `limit` bytes, until the end of the block. Raises StoreUnreachable."""
        if not self._rooms.acquire(blocking=False):
            raise StoreUnreachable("Many artifacts are arriving at this moment. Try again in a while.")
        try:
            with _told("there is no room for an upload"):
                self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
                file = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115  (it may fail to close)
            try:
                yield Incoming(file, limit)
            finally:
                with suppress(OSError):  # what was left to write found no room, which was told already
                    file.close()
        finally:
            self._rooms.release()

    def put(self, incoming: Incoming, mark: str) -> StoredFile:
        """Keep the file under a new key, and look that it lies there whole. Raises StoreUnreachable.

        `mark`, 16 hexadecimal digits, is of the database that will name it. What a failure leaves behind nothing
        names; it is found among `keys`.
        """
        key = f"{mark}/{now():%Y/%m/%d}/{uuid.uuid4().hex}"
        with _told("an artifact could not be stored"):
            incoming.file.seek(0)
            part = max(PART, incoming.size // (MOST_PARTS - 1) + 1)
            self._store.put(key, incoming.file, mode="overwrite", chunk_size=part, max_concurrency=AT_ONCE)
            if self._folder is not None:
                _settle(self._folder / key)
            size = self._store.head(key)["size"]
        if size != incoming.size:
            log.error("the store holds %d bytes of an artifact of %d", size, incoming.size)
            raise StoreUnreachable
        return StoredFile(key, size, incoming.sha256)

    def open(self, key: str, size: int) -> BinaryIO:
        """The file, to read and to seek in. Raises NotFound when it is not there whole, and StoreUnreachable."""
        try:
            with _told("an artifact could not be read", may_lack=True):
                found = self._store.head(key)["size"]
        except FileNotFoundError:
            found = -1
        if found != size:
            log.error("the artifact %s is %s in the store", key, "damaged" if found >= 0 else "missing")
            raise NotFound("The file of this artifact is lost: the store of artifacts does not have it any more.")
        return io.BufferedReader(_Reading(self._store, key, size), PART)

    def delete(self, key: str) -> None:
        """Delete the file; one that is gone already is no matter. Raises StoreUnreachable."""
        with _told("an artifact could not be deleted", may_lack=True):
            try:
                self._store.delete(key)
            except FileNotFoundError:
                if self._folder is None:  # S3 says that of the bucket only: somebody has deleted or renamed it
                    raise StoreUnreachable from None

    def keys(self, mark: str, *, before: datetime) -> Iterator[list[str]]:
        """The keys with this mark that have lain there since before this moment, some at a time.

        Files whose names are none of ours are left out: nobody is to sweep them away. Raises StoreUnreachable.
        """
        with _told("the artifacts could not be listed"):
            for some in self._store.list(mark, chunk_size=LISTED):
                found = [each["path"] for each in some if each["last_modified"] < before]
                yield [key for key in found if _KEY.fullmatch(key)]


class _Reading(io.RawIOBase):
    """A file of the store as Python's streams have them, fetched piece by piece where it is read."""

    def __init__(self, store: LocalStore | S3Store, key: str, size: int) -> None:
        self._store, self._key, self._size = store, key, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        length = min(len(room), self._size - self._at)
        if length <= 0:
            return 0
        with _told("an artifact could not be read", may_lack=True):
            piece = memoryview(self._store.get_range(self._key, start=self._at, length=length))
        room[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _bucket(settings: Settings) -> S3Store:
    bucket, _, prefix = settings.artifacts.removeprefix("s3://").partition("/")
    endpoint = settings.artifacts_s3_endpoint
    config: S3Config = {
        "region": settings.artifacts_s3_region,
        "virtual_hosted_style_request": not endpoint,
        "checksum_algorithm": "SHA256",
    }
    if endpoint:
        config["endpoint"] = endpoint
    if settings.artifacts_s3_key:
        config["access_key_id"] = settings.artifacts_s3_key
        config["secret_access_key"] = settings.artifacts_s3_secret
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={"connect_timeout": "5s", "timeout": "120s", "allow_http": endpoint.startswith("http://")},
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
        },
    )


def _settle(path: Path) -> None:
    """Have the disk keep the file: the row that names it outlives a loss of power, so the file has to as well."""
    for place in (path, path.parent):
        number = os.open(place, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def _told(what: str, *, may_lack: bool = False) -> Iterator[None]:
    """Log why the store does not do what it should, and say only that it does not.

    With `may_lack` FileNotFoundError passes, as it says that there is no such file.
    """
    try:
        yield
    except (BaseError, OSError) as problem:
        if may_lack and isinstance(problem, FileNotFoundError):
            raise
        log.error("%s: %s", what, _first_line(problem))
        raise StoreUnreachable from None


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__
