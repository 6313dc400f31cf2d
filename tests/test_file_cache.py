"""The cache gives back what was put in, whole, and forgets what was not used for longest."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hwquant.file_cache import cache_directory, fetch, keep


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


def test_cache_is_where_the_environment_says(tmp_path: Path) -> None:
    assert cache_directory({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "hwquant"
    for env in ({}, {"XDG_CACHE_HOME": ""}):
        assert cache_directory(env) == Path.home() / ".cache" / "hwquant"


def test_file_comes_back_with_its_mode(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    file.chmod(0o755)
    assert not fetch(cache / "key", tmp_path / "copy")
    keep(file, cache / "key", most=7)
    file.unlink()
    assert fetch(cache / "key", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert os.access(tmp_path / "copy", os.X_OK)
    assert not fetch(cache / "another", tmp_path / "copy")


def test_what_was_used_last_stays(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    for age, key in enumerate(("a", "b", "c"), start=1):
        keep(file, cache / key, most=300)
        os.utime(cache / key, (age, age))
    assert fetch(cache / "a", tmp_path / "copy")
    keep(file, cache / "d", most=300)
    assert {kept.name for kept in cache.iterdir()} == {"a", "c", "d"}
    keep(file, cache / "e", most=99)
    assert not list(cache.iterdir())


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    keep(file, file / "key", most=7)
    assert not fetch(file / "key", tmp_path / "copy")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_many_at_once_leave_one_whole_file(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 20))
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: keep(file, cache / "key", most=1 << 30), range(32)):
            assert fetch(cache / "key", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert [kept.name for kept in cache.iterdir()] == ["key"]
