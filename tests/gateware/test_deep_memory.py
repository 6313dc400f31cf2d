"""A memory in parts is one memory: every word, two cycles after its address."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from tests.gateware_bench import run_unit

BITS = 6


class Store(Component):
    def __init__(self, depth: int, init: list[int], *, is_rom: bool) -> None:
        self._depth, self._init, self._is_rom = depth, init, is_rom
        address = range(max(2, depth))
        super().__init__(
            {
                "address": In(address),
                "enable": In(1),
                "write_address": In(address),
                "write_word": In(BITS),
                "word": Out(BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write = None if self._is_rom else (self.enable, self.write_address, self.write_word)
        word = add_memory(m, "store", BITS, self._depth, self.address, init=self._init, write=write)
        m.d.comb += self.word.eq(word)
        return m


@pytest.mark.parametrize("depth", [1, 2, 300, 512, 513, 1600, 2901])
def test_every_word_is_read(depth: int) -> None:
    init = np.random.default_rng(depth).integers(0, 1 << BITS, depth).tolist()
    reads: list[dict[str, object]] = [{"address": at} for at in range(depth)]
    assert run_unit(Store(depth, init, is_rom=True), reads, "word", READ_DELAY) == init


def test_one_altered_word_is_seen() -> None:
    init = np.random.default_rng(1).integers(0, 1 << BITS, 1600).tolist()
    altered = [*init[:1550], init[1550] ^ 1, *init[1551:]]
    reads: list[dict[str, object]] = [{"address": at} for at in range(1600)]
    assert run_unit(Store(1600, altered, is_rom=True), reads, "word", READ_DELAY) != init


@pytest.mark.parametrize("depth", [3, 700, 1600])
def test_words_are_written_where_they_belong(depth: int) -> None:
    rng = np.random.default_rng(depth)
    words = rng.integers(0, 1 << BITS, depth).tolist()
    order = rng.permutation(depth).tolist()
    inputs: list[dict[str, object]] = []
    for at in order:
        inputs.append({"enable": 1, "write_address": at, "write_word": words[at], "address": 0})
    for at in range(depth):
        inputs.append({"enable": 0, "address": at})
    read = run_unit(Store(depth, [], is_rom=False), inputs, "word", READ_DELAY)
    assert read[depth:] == words
