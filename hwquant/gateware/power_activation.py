"""Power-activation units: value in, code out, one a cycle."""

from collections.abc import Sequence
from typing import assert_never

from hwquant.activation.cost import LOGIC_BITS, factors, registers, unit_tables
from hwquant.gateware.component import Component
from hwquant.gateware.guess_search import GuessSearch
from hwquant.gateware.multiply import limbs
from hwquant.gateware.threshold_compare import ThresholdCompare
from hwquant.gateware.threshold_search import ThresholdSearch
from hwquant.ir import (
    Activation,
    MacLayer,
    PowerNewton,
    PowerPade,
    PowerTable,
    Saturate,
    Thresholds,
)
from hwquant.scheduler.plan import is_parallel, log2_ceil


def create(records: Sequence[Activation], value_bits: int, code_bits: int) -> Component:
    """Return the unit that computes ``records``, which `activation_units` put together."""
    thresholds = [record for record in records if isinstance(record, Thresholds)]
    if thresholds:
        unit = ThresholdCompare if is_parallel(thresholds[0]) else ThresholdSearch
        return unit(thresholds, value_bits, code_bits)
    return GuessSearch(
        [record for record in records if not isinstance(record, Thresholds)], value_bits, code_bits
    )


def activation_units(layers: Sequence[MacLayer]) -> list[list[Activation]]:
    """Return the distinct activations of a network in order of first use, by the unit they share.

    Staircases share a unit if their codes take equally many bits to count, guesses if they are
    alike but for constants: of many staircases, each then costs its constants alone.
    """
    units: dict[tuple[object, ...], list[Activation]] = {}
    for layer in layers:
        match layer.activation:
            case None:
                continue
            case Thresholds() as it:
                kind = (is_parallel(it), log2_ceil(len(it.codes)))
            case PowerTable() as it:
                kind = ("table", it.value_bits, it.index_bits, it.shifts, it.window.stages)
                if it.slopes is not None:
                    kind += (it.slopes.bits, it.slopes.offset_bits, it.slopes.shift)
            case PowerPade() as it:
                terms = (len(it.numerator), len(it.denominator))
                kind = ("pade", it.value_bits, it.drop, *terms, it.guess_bits)
                kind += (it.window.stages, it.quotient_bits)
            case PowerNewton() as it:
                kind = ("newton", it.value_bits, it.drop, it.power, it.root, it.iterations)
                kind += (it.window.stages,)
            case Saturate():
                raise AssertionError(f"{layer.name}: values; the schedule refuses them")
            case _:
                assert_never(layer.activation)
        unit = units.setdefault(kind, [])
        if layer.activation not in unit:
            unit.append(layer.activation)
    return list(units.values())


def logic_tables(records: Sequence[Activation]) -> list[tuple[int, int]]:
    """Words and bits of the tables behind a unit's guesses that become logic."""
    return [(words, bits) for words, bits in unit_tables(records) if words * bits <= LOGIC_BITS]


def memory_tables(layers: Sequence[MacLayer]) -> list[tuple[int, int]]:
    """Words and bits of the memories in the units of one lane."""
    units = [unit_tables(records) for records in activation_units(layers)]
    return [(words, bits) for unit in units for words, bits in unit if words * bits > LOGIC_BITS]


def guess_registers(layers: Sequence[MacLayer]) -> int:
    """Flip-flops of the units of one lane that guess."""
    units = (records[0] for records in activation_units(layers))
    return sum(registers(unit) for unit in units if not isinstance(unit, Thresholds))


def multipliers(records: Sequence[Activation]) -> list[tuple[int, int, bool]]:
    """Return the bits of either factor of a unit's products, and whether they are signed.

    Wide factors are cut, as in the gateware.
    """
    quotients = [record for record in records if isinstance(record, PowerPade)]
    if not quotients:
        return [(a, b, False) for a, b in factors(records[0])]
    x_bits, found = quotients[0].x_bits, list[tuple[int, int, bool]]()
    for terms in ([q.numerator for q in quotients], [q.denominator for q in quotients]):
        largest = [max(each) for each in zip(*terms, strict=True)]
        for at in range(1, len(largest)):
            is_constant = at == len(largest) - 1  # of each record
            is_signed = is_constant and len(records) > 1  # as `chosen` makes them
            width = sum(largest[at:]).bit_length() + is_signed
            for part in limbs(width):
                bits, is_top = part.stop - part.start, is_signed and part.stop == width
                held = largest[at] >> part.start & (1 << bits) - 1
                if not is_constant or is_signed or held.bit_count() > 1:  # else a shift
                    found.append((bits, x_bits + is_top, is_top))
    return found
