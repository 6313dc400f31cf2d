"""What activation units have in common: ports, and the constants of the selected record."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import memory
from amaranth.lib.wiring import In, Member, Out

from hwquant.activation.cost import LOGIC_BITS
from hwquant.gateware.delay import delayed
from hwquant.gateware.lookup import lookup
from hwquant.ir import Activation


def unit_ports(records: int, value_bits: int, code_bits: int) -> dict[str, Member]:
    """Return the members of a unit; ``select`` says which of several records is this value's."""
    ports = {"value": In(signed(value_bits)), "code": Out(code_bits)}
    return ports | ({"select": In(range(records))} if records > 1 else {})


def late(m: Module, select: Value | None, cycles: int, name: str) -> Value | None:
    """Return which record is that of the value of ``cycles`` cycles ago."""
    return None if select is None else delayed(m, select, cycles, name)


def chosen(values: list[int], select: Value | None) -> Value | int:
    """Return the value that belongs to the selected record."""
    if select is None:
        return values[0]
    width = max(abs(value) for value in values).bit_length() + 1
    return lookup([value & (1 << width) - 1 for value in values], select, width).as_signed()


def decode(records: Sequence[Activation], index: Value, select: Value | None, width: int) -> Value:
    """Return code ``index`` of the selected record."""
    if all(list(r.codes) == list(range(len(r.codes))) for r in records):
        return index
    table = joined([record.codes for record in records], len(index))
    return lookup(table, index if select is None else Cat(index, select), width)


def joined(tables: Sequence[Sequence[int]], index_bits: int) -> list[int]:
    """Put tables one after the other, each with ``2**index_bits`` entries."""
    size = 1 << index_bits
    if any(len(table) > size for table in tables):
        raise ValueError(
            f"tables of {[len(t) for t in tables]} entries, index of {index_bits} bits"
        )
    if len(tables) == 1:
        return list(tables[0])
    return [entry for table in tables for entry in (*table, *[0] * (size - len(table)))]


class Rom:
    """A read-only table for several reads a cycle: logic, or a memory.

    A read takes ``plan.READ_DELAY`` cycles, the last of them for a register behind the memory,
    without which units of eight bits were slower than 100 MHz on ECP5.
    """

    def __init__(self, m: Module, name: str, table: Sequence[int], width: int) -> None:
        self._m, self._name, self._table, self._width = m, name, table, width
        self._reads = 0
        self._memory: memory.Memory | None = None
        if len(table) * width > LOGIC_BITS:
            style = {"ram_style": "block"}  # else yosys makes logic of a table that nobody writes
            self._memory = memory.Memory(
                shape=unsigned(width), depth=len(table), init=table, attrs=style
            )
            m.submodules[name] = self._memory

    def read(self, index: Value) -> Value:
        """Return the entry that ``index`` named two cycles ago."""
        m, name = self._m, f"{self._name}_{self._reads}"
        self._reads += 1
        entry = Signal(self._width, name=name, reset_less=True)
        if self._memory is None:
            m.d.sync += entry.eq(
                lookup(self._table, delayed(m, index, 1, f"{name}_at"), self._width)
            )
        else:
            port = self._memory.read_port(domain="sync")
            m.d.comb += [port.addr.eq(index), port.en.eq(1)]
            m.d.sync += entry.eq(port.data)
        return entry
