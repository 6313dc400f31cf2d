"""Masks: twice as many patterns of a product's bit as a table of 6 inputs tells apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

_MOST = 8  # patterns of an inner table: three weight bits and three recoded ones
# what the outer table makes of the inner one's bit t where the recoded bit is 0, and where it is 1
_Use = Literal["t", "~t", "0", "1"]
_Mode = tuple[_Use, _Use]
_MODES: tuple[_Mode, ...] = (
    ("t", "t"),
    ("t", "~t"),
    ("t", "0"),
    ("t", "1"),
    ("0", "t"),
    ("1", "t"),
)


@dataclass(frozen=True)
class Mask:
    """Up to 16 patterns of three weight bits, from 8 and a recoded bit.

    An outer table sees the inner one, two weight bits (``axes``) and the recoded bit; ``modes`` is
    what it does for each value of the two. ``inner`` and ``recoded`` belong to each pattern.
    """

    axes: tuple[int, int]
    modes: tuple[_Mode, ...]
    inner: dict[int, int]
    recoded: dict[int, int]


def find_mask(patterns: Sequence[int]) -> Mask | None:
    """Return the first mask that spells all patterns, at most 16, if there is one."""
    distinct = sorted(set(patterns))
    for axes in combinations(range(3), 2):
        for modes in _promising(distinct, axes):
            if mask := _try_mask(distinct, axes, modes):
                return mask
    return None


def _promising(patterns: Sequence[int], axes: tuple[int, int]) -> Iterator[tuple[_Mode, ...]]:
    """Leave out modes in which a pattern cannot be spelled, or too few have a partner.

    Sets of patterns, and of pairs of them, are the bits of numbers: there are many to intersect.
    """
    count = len(patterns)
    others = sum(1 << p * count + q for p in range(count) for q in range(count) if p != q)
    chosen: list[tuple[tuple[_Mode, ...], int, int, int]] = [
        ((), (1 << count) - 1, (1 << count) - 1, others)
    ]
    for group in range(4):
        places = sum(1 << place for place in range(8) if _group(place, axes) == group)
        sets = [(mode, *_spelled(patterns, places, mode)) for mode in _MODES]
        chosen = [
            (both, direct, masked, pairs)
            for modes, *old in chosen
            for mode, *new in sets
            for both in [(*modes, mode)]
            for direct, masked, pairs in [[a & b for a, b in zip(old, new, strict=True)]]
            if (direct | masked) == (1 << count) - 1
            and _partnered(pairs, count) >= 2 * (count - _MOST)
        ]
    for modes, *_ in chosen:
        yield modes


def _spelled(patterns: Sequence[int], places: int, mode: _Mode) -> tuple[int, int, int]:
    """Return which patterns agree with a mode in some places: as 0, as 1, and pairs of both."""

    def agrees(pattern: int, use: _Use) -> bool:
        return use in ("t", "~t") or pattern & places == (places if use == "1" else 0)

    count = len(patterns)
    direct = [agrees(p, mode[0]) for p in patterns]
    masked = [agrees(p, mode[1]) for p in patterns]
    is_shared = mode[0] == "t" and mode[1] in ("t", "~t")
    unequal = places if mode[1] == "~t" else 0
    pairs = sum(
        1 << i * count + j
        for i, p in enumerate(patterns)
        for j, q in enumerate(patterns)
        if direct[i] and masked[j] and (not is_shared or (p ^ q) & places == unequal)
    )
    return (
        sum(1 << at for at, is_so in enumerate(direct) if is_so),
        sum(1 << at for at, is_so in enumerate(masked) if is_so),
        pairs,
    )


def _partnered(pairs: int, count: int) -> int:
    """Count the patterns that are part of a pair."""
    found = 0
    for p in range(count):
        if row := pairs >> p * count & (1 << count) - 1:
            found |= row | 1 << p
    return found.bit_count()


def _try_mask(
    patterns: Sequence[int], axes: tuple[int, int], modes: tuple[_Mode, ...]
) -> Mask | None:
    """Find pairs of patterns that share an inner pattern, as many as leave 8."""
    first, second = _where(axes, modes, 0), _where(axes, modes, 1)
    both = first["t"] & (second["t"] | second["~t"])
    direct = {p for p in patterns if p & (first["0"] | first["1"]) == first["1"]}
    masked = {p for p in patterns if p & (second["0"] | second["1"]) == second["1"]}
    if len(direct | masked) < len(patterns):
        return None
    partners = {
        p: [q for q in masked if q != p and not (p ^ q ^ second["~t"]) & both] for p in direct
    }
    pairs = _match(patterns, partners, len(patterns) - _MOST)
    if pairs is None:
        return None
    inner, recoded = dict[int, int](), dict[int, int]()
    for p, q in pairs:
        inner[p] = inner[q] = p & first["t"] | q & ~first["t"] & second["t"]
        recoded |= {p: 0, q: 1}
    for p in patterns:
        if p not in inner:
            recoded[p] = int(p not in direct)
            inner[p] = (p ^ second["~t"]) & ~(second["0"] | second["1"]) if recoded[p] else p
    return Mask(axes, modes, inner, recoded)


def _where(axes: tuple[int, int], modes: tuple[_Mode, ...], recoded: int) -> dict[_Use, int]:
    """Places of a pattern, as bits, at which the outer table does each thing."""
    found: dict[_Use, int] = {"t": 0, "~t": 0, "0": 0, "1": 0}
    for place in range(8):
        mode = modes[_group(place, axes)]
        found[mode[recoded]] |= 1 << place
    return found


def _group(place: int, axes: tuple[int, int]) -> int:
    """Value of the two weight bits at a place of a pattern."""
    return (place >> axes[0] & 1) | (place >> axes[1] & 1) << 1


def _match(
    patterns: Sequence[int], partners: dict[int, list[int]], needed: int
) -> list[tuple[int, int]] | None:
    """Return ``needed`` pairs of a pattern and its partner, every pattern in one at most."""
    if needed <= 0:
        return []
    if len(patterns) < 2 * needed:
        return None
    p, rest = patterns[0], patterns[1:]
    for q in rest:
        for pair in ((p, q), (q, p)):
            if pair[1] in partners.get(pair[0], ()):
                left = [other for other in rest if other != q]
                found = _match(left, partners, needed - 1)
                if found is not None:
                    return [pair, *found]
    return _match(rest, partners, needed)
