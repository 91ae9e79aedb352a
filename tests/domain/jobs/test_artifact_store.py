"""Where artifacts lie: the same in a folder and in an S3-compatible store, which is a real server here."""

from __future__ import annotations

import hashlib
import os
import stat
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from portal.database import now
from portal.domain.errors import NotFound, StoreUnreachable, TooLarge
from portal.domain.jobs import artifact_store
from portal.domain.jobs.artifact_store import ArtifactStore, StoredFile
from tests.artifacts import S3Server, files_in, settings

MARK = "0123456789abcdef"
LARGE = 20 * 1024 * 1024  # bytes: more than two parts


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    environment = request.getfixturevalue("s3").environment if request.param == "s3" else {}
    return ArtifactStore(settings(tmp_path, **environment))


@pytest.fixture
def in_folder(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(settings(tmp_path))


def put(store: ArtifactStore, content: bytes, mark: str = MARK) -> StoredFile:
    with store.receive(len(content)) as incoming:
        incoming.write(content)
        return store.put(incoming, mark)


def listed(store: ArtifactStore, mark: str = MARK, later: timedelta = timedelta(minutes=1)) -> list[str]:
    return [key for keys in store.keys(mark, before=now() + later) for key in keys]


@pytest.mark.parametrize("content", [b"", b"a few words", os.urandom(LARGE)], ids=["empty", "small", "large"])
def test_what_was_put_is_read_again(store: ArtifactStore, content: bytes) -> None:
    file = put(store, content)
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).digest())
    with store.open(file.key, file.size) as stream:
        assert stream.read() == content


def test_it_can_be_read_from_the_middle(store: ArtifactStore) -> None:
    content = os.urandom(LARGE)
    file = put(store, content)
    with store.open(file.key, file.size) as stream:
        stream.seek(LARGE - 10)
        assert stream.read(100) == content[-10:]
        stream.seek(5)
        assert stream.read(7) == content[5:12]


def test_each_file_has_a_key_of_its_own(store: ArtifactStore) -> None:
    assert put(store, b"same").key != put(store, b"same").key


def test_what_is_deleted_is_gone_and_may_be_deleted_again(store: ArtifactStore) -> None:
    file = put(store, b"words")
    store.delete(file.key)
    store.delete(file.key)
    with pytest.raises(NotFound):
        store.open(file.key, file.size)


def test_a_file_of_another_length_is_as_good_as_lost(store: ArtifactStore) -> None:
    file = put(store, b"words")
    with pytest.raises(NotFound):
        store.open(file.key, 6)


def test_keys_are_listed_by_mark_and_age(store: ArtifactStore) -> None:
    mine, other = put(store, b"mine", "a" * 16), put(store, b"other", "b" * 16)
    assert mine.key in listed(store, "a" * 16)
    assert other.key not in listed(store, "a" * 16)
    assert listed(store, "a" * 16, -timedelta(minutes=1)) == []


def test_files_with_other_names_are_nobodys_to_sweep(in_folder: ArtifactStore, tmp_path: Path) -> None:
    file = put(in_folder, b"words")
    (tmp_path / "artifacts" / MARK / "notes.txt").write_text("somebody's own")
    assert listed(in_folder) == [file.key]


def test_an_upload_over_the_limit_is_refused_at_once_and_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    before = listed(store)
    with store.receive(10) as incoming:
        incoming.write(b"0123456789")
        with pytest.raises(TooLarge, match="10 bytes"):
            incoming.write(b"!")
    assert listed(store) == before
    assert files_in(tmp_path) == []


def test_what_comes_in_has_no_name_that_a_crash_could_leave_behind(in_folder: ArtifactStore, tmp_path: Path) -> None:
    with in_folder.receive(100) as incoming:
        incoming.write(b"half of it")
        assert files_in(tmp_path) == []


def test_only_the_portals_user_reads_the_folder(in_folder: ArtifactStore, tmp_path: Path) -> None:
    put(in_folder, b"words")
    for folder in ("artifacts", "incoming"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_one_thread_is_left_for_others_while_uploads_come_in(tmp_path: Path) -> None:
    store = ArtifactStore(settings(tmp_path, PORTAL_THREADS="3"))
    refused = pytest.raises(StoreUnreachable, match="Many artifacts")
    with store.receive(1), store.receive(1), refused, store.receive(1):
        raise AssertionError("there was room")
    with store.receive(1):
        pass


def test_a_folder_that_cannot_be_written_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ArtifactStore(settings(tmp_path, PORTAL_ARTIFACTS=str(tmp_path / "file" / "artifacts")))
    with pytest.raises(StoreUnreachable):
        put(store, b"words")
    assert files_in(tmp_path) == [tmp_path / "file"]


def test_a_disk_without_room_is_told_and_the_file_is_not_there(
    in_folder: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    with in_folder.receive(100) as incoming, Path("/dev/full").open("wb", buffering=0) as full:
        incoming.file, before = full, incoming.file
        with pytest.raises(StoreUnreachable):
            incoming.write(b"words")
        incoming.file = before
    assert "No space left" in caplog.text


@pytest.mark.parametrize("wrong", ["nobody listens", "no such bucket"])
def test_a_store_that_cannot_be_reached_says_so_and_keeps_its_secret(
    s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    change = {"PORTAL_ARTIFACTS_S3_ENDPOINT": "http://127.0.0.1:1"}
    if wrong == "no such bucket":
        change = {"PORTAL_ARTIFACTS": "s3://elsewhere/of/the-portal"}
    store = ArtifactStore(settings(tmp_path, **{**s3.environment, **change}))
    with pytest.raises(StoreUnreachable):
        put(store, b"words")
    with pytest.raises(StoreUnreachable):
        store.delete(f"{MARK}/2030/01/01/{'0' * 32}")
    with pytest.raises(StoreUnreachable):
        listed(store)
    assert "could not be stored" in caplog.text
    assert "a-secret-of-tests" not in caplog.text


def test_a_large_file_never_lies_in_memory_whole(in_folder: ArtifactStore) -> None:
    piece = os.urandom(1024 * 1024)
    tracemalloc.start()
    try:
        with in_folder.receive(1 << 30) as incoming:
            for _ in range(64):
                incoming.write(piece)
            file = in_folder.put(incoming, MARK)
        with in_folder.open(file.key, file.size) as stream:
            while stream.read(256 * 1024):
                pass
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * artifact_store.PART
