"""Power-activation units: value in, code out, one a cycle."""

from collections.abc import Sequence
from typing import assert_never

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from amaranth.lib.wiring import In, Member, Out

from hwquant.gateware.component import Component
from hwquant.gateware.lookup import lookup
from hwquant.ir import Activation, MacLayer, PowerTable, Saturate, Thresholds
from hwquant.plan import log2_ceil


class ThresholdSearch(Component):
    """Exact staircases by pipelined binary search, one comparison a stage.

    Members
    -------
    select : which of the staircases, if there are several; stable while values pass

    Timing
    ------
    ``code`` follows ``value`` by ``plan.activation_delay`` cycles, the same for all of them.
    """

    def __init__(self, records: Sequence[Thresholds], value_bits: int, code_bits: int) -> None:
        self._records = records
        super().__init__(_ports(len(records), value_bits, code_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stages = log2_ceil(len(self._records[0].thresholds) + 1)
        select = self.select if len(self._records) > 1 else None
        # relative to the smallest threshold, only the range in which the answer changes matters
        lows = [record.thresholds[0] - 1 for record in self._records]
        highs = [record.thresholds[-1] for record in self._records]
        longest = max(high - low for low, high in zip(lows, highs, strict=True))
        span = range(longest + 1)
        low, high = _chosen(lows, select), _chosen(highs, select)
        value = Signal(span, name="value_0")
        with m.If(self.value <= low):
            m.d.sync += value.eq(0)
        with m.Elif(self.value >= high):
            m.d.sync += value.eq(high - low)
        with m.Else():
            m.d.sync += value.eq(self.value - low)
        never = longest + 1
        steps: list[list[int]] = []
        for record, least in zip(self._records, lows, strict=True):
            above = [t - least for t in record.thresholds]
            steps.append(above + [never] * ((1 << stages) - 1 - len(above)))
        index: Value = Const(0, 0)
        for stage in range(stages):
            half = 1 << (stages - 1 - stage)
            width = never.bit_length()
            choices = [
                of_record[(k << (stages - stage)) + half - 1]
                for of_record in steps
                for k in range(1 << stage)
            ]
            at = index if select is None else Cat(index, select)
            threshold = lookup(choices, at, width) if len(at) else Const(choices[0], width)
            reached = Signal(name=f"reached_{stage}")
            m.d.comb += reached.eq(value >= threshold)
            next_index = Signal(stage + 1, name=f"index_{stage + 1}")
            next_value = Signal(span, name=f"value_{stage + 1}")
            m.d.sync += [next_index.eq(Cat(reached, index)), next_value.eq(value)]
            index, value = next_index, next_value
        if all(list(r.codes) == list(range(len(r.codes))) for r in self._records):
            m.d.comb += self.code.eq(index)
        else:
            m.d.comb += self.code.eq(_code(self._records, index, select, len(self.code)))
        return m


class PowerTableLookup(Component):
    """Piecewise constant on leading one and mantissa; ``select`` as in `ThresholdSearch`.

    Timing
    ------
    ``code`` follows ``value`` by ``plan.activation_delay`` cycles: saturate, normalize, look up.
    """

    def __init__(self, records: Sequence[PowerTable], value_bits: int, code_bits: int) -> None:
        self._records = records
        super().__init__(_ports(len(records), value_bits, code_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        record = self._records[0]
        bits, mantissa = record.value_bits, record.mantissa_bits
        select = self.select if len(self._records) > 1 else None
        value = Signal(bits)
        with m.If(self.value < 0):
            m.d.sync += value.eq(0)
        with m.Elif(self.value >= (1 << bits)):
            m.d.sync += value.eq((1 << bits) - 1)
        with m.Else():
            m.d.sync += value.eq(self.value)
        address = Signal(range(len(record.codes)))
        with m.If(value < (1 << (mantissa + 1))):
            m.d.sync += address.eq(value)
        for exponent in range(1, bits - mantissa):
            with m.If(value[exponent + mantissa :] == 1):
                m.d.sync += address.eq(
                    (exponent << mantissa) + value[exponent : exponent + mantissa + 1]
                )
        m.d.sync += self.code.eq(_code(self._records, address, select, len(self.code)))
        return m


def _ports(records: int, value_bits: int, code_bits: int) -> dict[str, Member]:
    ports = {"value": In(signed(value_bits)), "code": Out(code_bits)}
    return ports | ({"select": In(range(records))} if records > 1 else {})


def _chosen(values: list[int], select: Value | None) -> Value | int:
    """Return the value that belongs to the selected record."""
    if select is None:
        return values[0]
    width = max(abs(value) for value in values).bit_length() + 1
    return lookup([value & (1 << width) - 1 for value in values], select, width).as_signed()


def _code(records: Sequence[Activation], index: Value, select: Value | None, width: int) -> Value:
    """Return code ``index`` of the selected record."""
    if select is None:
        return lookup(records[0].codes, index, width)
    size = 1 << len(index)
    codes = [code for r in records for code in (*r.codes, *[0] * (size - len(r.codes)))]
    return lookup(codes, Cat(index, select), width)


def create(records: Sequence[Activation], value_bits: int, code_bits: int) -> Component:
    """Return the unit that computes ``records``, which `activation_units` put together."""
    thresholds = [record for record in records if isinstance(record, Thresholds)]
    tables = [record for record in records if isinstance(record, PowerTable)]
    if thresholds:
        return ThresholdSearch(thresholds, value_bits, code_bits)
    return PowerTableLookup(tables, value_bits, code_bits)


def activation_units(layers: Sequence[MacLayer]) -> list[list[Activation]]:
    """Return the distinct activations of a network in order of first use, by the unit they share.

    Staircases share a unit if their searches take equally many stages, tables if they have the same
    segments: of many staircases, each then costs its constants alone.
    """
    units: dict[tuple[int, ...], list[Activation]] = {}
    for layer in layers:
        match layer.activation:
            case None:
                continue
            case Thresholds(thresholds, _):
                kind = (log2_ceil(len(thresholds) + 1),)
            case PowerTable(value_bits, mantissa_bits, _):
                kind = (value_bits, mantissa_bits)
            case Saturate():
                raise AssertionError(f"{layer.name}: values; the schedule refuses them")
            case _:
                assert_never(layer.activation)
        unit = units.setdefault(kind, [])
        if layer.activation not in unit:
            unit.append(layer.activation)
    return list(units.values())
