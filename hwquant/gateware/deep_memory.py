"""A memory that may be deeper than a block RAM: parts, each with a register behind its read."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory

from hwquant.fpga.block_ram import parts_of, ram_style
from hwquant.gateware.delay import delayed

# to yosys: no need to keep apart, with a comparison and a choice behind each read, what was there
_NO_COLLISIONS: dict[str, Any] = {"no_rw_check": 1}
READ_DELAY = 2  # address -> word: the read, which takes most of a period, and the register


def add_memory(
    m: Module,
    name: str,
    bits: int,
    depth: int,
    address: Value,
    *,
    init: Sequence[int] = (),
    write: tuple[Value, Value, Value] | None = None,
    device: str | None = None,
) -> Value:
    """Add a memory of ``depth`` words and return the word at ``address``, ``READ_DELAY`` later.

    ``write`` is a port: enable, address, word; without it, what ``device`` has more of says whether
    a part is block RAM or logic. The parts' registers stand before the choice among them, which
    yosys would otherwise put right behind the block RAMs.
    """
    parts = parts_of(depth)
    choice: Value = Const(0, 0)
    for part, (start, words) in enumerate(parts):
        label = f"{name}_{part}" if part else name
        store = memory.Memory(
            shape=unsigned(bits),
            depth=max(2, words),
            init=init[start : start + words],
            attrs=ram_style(device, bits, words) if write is None else _NO_COLLISIONS,
        )
        m.submodules[label] = store
        port = store.read_port(domain="sync")
        read = Signal(bits, name=f"{label}_word", reset_less=True)
        m.d.comb += [port.addr.eq(address), port.en.eq(1)]
        m.d.sync += read.eq(port.data)
        if write is not None:
            enable, write_address, write_word = write
            if len(parts) > 1:
                enable &= _is_in(write_address, start, words)
            write_port = store.write_port()
            m.d.comb += [
                write_port.en.eq(enable),
                write_port.addr.eq(write_address),
                write_port.data.eq(write_word),
            ]
        if part:
            is_in = _is_in(address, start, words)
            choice = Mux(delayed(m, is_in, READ_DELAY, f"{label}_chosen"), read, choice)
        else:
            choice = read
    return choice


def _is_in(address: Value, start: int, words: int) -> Value:
    """Whether an address lies in a part, which starts at a multiple of its size."""
    size = (words - 1).bit_length()
    return address[size:] == start >> size
