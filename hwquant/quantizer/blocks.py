"""Work in two threads, and on a few channels at a time, so that they stay in the cache.

NumPy lets other threads run while it computes. Nothing that is called here may call this module.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 2
BLOCK = 1 << 18  # elements at a time

_pool = ThreadPoolExecutor(THREADS)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what ``work`` makes of each item, in their order."""
    return list(_pool.map(work, items))


def by_channels(count: int, size: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` with slices that together are ``count`` channels of ``size`` elements.

    In no order: a call writes to its own channels only.
    """
    step = max(1, BLOCK // max(1, size))
    slices = [slice(first, min(first + step, count)) for first in range(0, count, step)]
    if len(slices) < THREADS:
        for part in slices:
            work(part)
    else:
        in_threads(work, slices)
