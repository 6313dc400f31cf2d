"""The tap buffer holds the columns before, word by word."""

from typing import Any

import numpy as np
import pytest

from hwquant.gateware.deep_memory import READ_DELAY
from hwquant.gateware.tap_buffer import TapBuffer
from hwquant.scheduler.plan import TAP_DELAY
from tests.gateware_bench import run_unit

BITS = 5


@pytest.mark.parametrize("taps", [2, 3, 5])
@pytest.mark.parametrize("words", [TAP_DELAY, 8])
def test_words_are_those_of_the_columns_before(words: int, taps: int) -> None:
    """Two passes a column, of which the last pushes; a row of 5 columns, then another."""
    rng = np.random.default_rng(taps)
    steps: list[tuple[int, int, int, int]] = []  # address, word, push, edge
    wanted: list[list[int]] = []
    pads = rng.integers(0, 1 << BITS, words).tolist()
    for _ in range(2):
        columns = [[[pad] * (taps - 1) for pad in pads]]
        for x in range(5):
            column = rng.integers(0, 1 << BITS, words).tolist()
            for is_last in (0, 1):
                steps += [(at, column[at], is_last, int(x == 0)) for at in range(words)]
                wanted += columns[-1] if x else [[-1] * (taps - 1)] * words
            columns.append([[new, *old[:-1]] for new, old in zip(column, columns[-1], strict=True)])
    inputs: list[dict[str, object]] = [{"address": at} for at, *_ in steps]
    inputs += [{} for _ in range(READ_DELAY)]  # a word comes later than its address
    for (at, word, push, edge), given in zip(steps, inputs[READ_DELAY:], strict=True):
        given |= {"word": word, "push": push, "edge": edge, "pad_word": pads[at]}
    dut = TapBuffer(BITS, taps, (words - 1).bit_length())
    got: list[Any] = run_unit(dut, inputs, "words", 0)[READ_DELAY:]
    pairs = [(found, want) for found, want in zip(got, wanted, strict=True) if want[0] >= 0]
    assert len(pairs) == 2 * 4 * 2 * words
    for found, want in pairs:
        assert [found[at] for at in range(taps - 1)] == want
