"""A memory in parts is one memory: every word, two cycles after its address."""

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out

from hwquant.emit import emit_unit
from hwquant.fpga.block_ram import Memory, parts_of, place_memory
from hwquant.fpga.devices import find_device
from hwquant.fpga.synth import synthesize
from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from tests.gateware_bench import run_unit

BITS = 6


class Store(Component):
    def __init__(
        self, depth: int, init: list[int], *, is_rom: bool, device: str | None = None
    ) -> None:
        self._depth, self._init, self._is_rom, self._device = depth, init, is_rom, device
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
        given = {"init": self._init, "write": write, "device": self._device}
        word = add_memory(m, "store", BITS, self._depth, self.address, **given)
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


@pytest.mark.synth
@pytest.mark.parametrize("depth", [80, 1200])
@pytest.mark.parametrize("device", ["xc7a35t", "lfe5u-25f", "ice40hx8k", "gw2a-18"])
def test_yosys_makes_a_rom_of_what_was_chosen(device: str, depth: int, tmp_path: Path) -> None:
    init = np.random.default_rng(depth).integers(0, 1 << BITS, depth).tolist()
    emit_unit(Store(depth, init, is_rom=True, device=device), tmp_path)
    parts = [Memory(BITS, words, rom=True) for _, words in parts_of(depth)]
    target = find_device(device)
    halves = sum(place_memory(target, part).half_brams for part in parts)
    assert (halves > 0) == (depth > 80)
    assert synthesize(tmp_path, device).design.brams == -(-halves // 2)
