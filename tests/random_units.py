"""Random activation units that guess: any record that is valid, near a staircase or not."""

from dataclasses import replace

import numpy as np

from hwquant.ir import Guess, PowerNewton, PowerPade, PowerTable, Slopes, Thresholds, Window
from hwquant.ir_tensor import quotient_bits

KINDS = ("table", "pade", "newton")


def random_guess(rng: np.random.Generator, kind: str, steps: Thresholds) -> Guess:
    """Draw a unit of ``kind`` whose window has ``steps``; its guesses fit none of them."""
    low = steps.thresholds[0] - int(rng.integers(1, 9))
    bits = max(3, (steps.thresholds[-1] - low).bit_length())
    drop = int(rng.integers(0, bits - 1))
    match kind:
        case "table":
            index_bits = int(rng.integers(0, min(bits, 5)))
            some = rng.choice(bits - index_bits, int(rng.integers(0, bits - index_bits)), False)
            shifts = (*sorted(int(s) for s in some), bits - index_bits)
            window = _window(rng, len(shifts) << index_bits, steps)
            table = PowerTable(low, bits, window, index_bits, shifts)
            own = rng.spawn(1)[0]
            return replace(table, slopes=_slopes(own, table)) if own.integers(2) else table
        case "pade":
            above, below = (
                tuple(int(t) for t in rng.integers(0, 1 << rng.integers(3, 12), count))
                for count in rng.integers(2, 5, 2)
            )
            below = (max(1, below[0]), *below[1:])
            guess_bits = int(rng.integers(1, 6))
            window = _window(rng, 1 << guess_bits, steps)
            longest = max(guess_bits, quotient_bits(above, below, bits - drop))
            return PowerPade(low, bits, window, drop, above, below, longest)
        case _:
            root = int(rng.integers(2, 5))
            power, iterations = int(rng.integers(1, root)), int(rng.integers(1, 5))
            window = _window(rng, 1 << -(-(bits - drop) * power // root), steps)
            return PowerNewton(low, bits, window, drop, power, root, iterations)


def _slopes(rng: np.random.Generator, table: PowerTable) -> Slopes:
    """Draw slopes for a table, 0 where ranks would rise too far."""
    ranks, top = table.window.ranks, len(table.codes) - (1 << table.window.stages)
    bits, offset_bits, shift = (int(n) for n in rng.integers(1, 6, 3))
    values = rng.integers(0, 1 << bits, len(ranks)).tolist()
    drawn = Slopes(tuple(values), bits, offset_bits, shift)
    lengths = [table.shifts[guess >> table.index_bits] for guess in range(len(ranks))]
    fits = [
        rank + drawn.largest_rise(guess, length) <= top
        for guess, (rank, length) in enumerate(zip(ranks, lengths, strict=True))
    ]
    return replace(drawn, values=tuple(np.where(fits, values, 0).tolist()))


def _window(rng: np.random.Generator, guesses: int, steps: Thresholds) -> Window:
    count = len(steps.codes)
    stages = int(rng.integers(0, count.bit_length()))
    ranks = np.sort(rng.integers(0, count - (1 << stages) + 1, guesses))
    return Window(tuple(ranks.tolist()), stages, steps)
