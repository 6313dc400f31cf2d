"""The cache directory: what takes long to make and need not be made again."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def cache_directory(env: Mapping[str, str]) -> Path:
    """Return ``$XDG_CACHE_HOME/hwquant``, by default ``~/.cache/hwquant``."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwquant"


def fetch(kept: Path, place: Path) -> bool:
    """Copy a file out of the cache to ``place`` and mark it as used; return whether it is there."""
    try:
        os.utime(kept)
        shutil.copy(kept, place)
    except OSError:  # most often: there is none
        return False
    return True


def keep(file: Path, kept: Path, most: int) -> None:
    """Copy a file into the cache as ``kept``, which appears whole or not at all.

    The files beside it that were not used for longest are removed, until at most ``most`` bytes
    remain. Other processes may do the same at once. Where nothing can be written it is not kept.
    """
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=kept.parent)
        os.close(handle)
        try:
            shutil.copy(file, draft)
            Path(draft).rename(kept)
        finally:
            Path(draft).unlink(missing_ok=True)
        _make_room(kept.parent, most)


def _make_room(folder: Path, most: int) -> None:
    newest = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    sizes = itertools.accumulate(file.stat().st_size for file in newest)
    for file, size in zip(newest, sizes, strict=True):
        if size > most:
            file.unlink()
