"""Registers move into block RAMs and multipliers where nobody can tell, and stay where one can."""

import copy
from collections.abc import Callable

import pytest

from hwquant.fpga.output_registers import Bit, Cell, Module, absorb

CLOCK, RESET, ENABLE, OTHER_CLOCK = 1, 2, 3, 4
OUTPUT, NEXT = 100, 200  # the first net that a block drives, and that its registers drive


def cell(kind: str, parameters: dict[str, str], pins: dict[str, Bit], outputs: set[str]) -> Cell:
    return {
        "type": kind,
        "parameters": parameters,
        "port_directions": {pin: "output" if pin in outputs else "input" for pin in pins},
        "connections": {pin: [bit] for pin, bit in pins.items()},
    }


def flip_flop(d: int, q: int) -> Cell:
    parameters = {"CEMUX": "1 ", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}
    pins: dict[str, Bit] = {"CLK": CLOCK, "DI": d, "LSR": "0", "Q": q}
    return cell("TRELLIS_FF", parameters, pins, {"Q"})


def module(block: Cell, used: list[str]) -> Module:
    """Return a module in which ``used`` outputs of a block go to a register each, then out."""
    cells = {"block": block}
    for at, pin in enumerate(used):
        block["connections"][pin] = [OUTPUT + at]
        block["port_directions"][pin] = "output"
        cells[f"register_{at}"] = flip_flop(OUTPUT + at, NEXT + at)
    out: list[Bit] = [NEXT + at for at in range(len(used))]
    return {
        "ports": {
            "clk": {"direction": "input", "bits": [CLOCK]},
            "o": {"direction": "output", "bits": out},
        },
        "cells": cells,
    }


def block_ram(width_a: int, width_b: int) -> Cell:
    parameters = {"DATA_WIDTH_A": f"{width_a:032b}", "DATA_WIDTH_B": f"{width_b:032b}"}
    pins: dict[str, Bit] = {"OCEA": "0", "OCEB": "0"}
    for side in "AB":
        parameters |= {f"REGMODE_{side}": "NOREG", f"CLK{side}MUX": f"CLK{side}"}
        pins |= {f"CLK{side}": CLOCK, f"CE{side}": "1", f"RST{side}": "0"}
    return cell("DP16KD", parameters, pins, set())


def halves() -> Module:
    """Return a block RAM of two ports, of which B's outputs have registers."""
    return module(block_ram(18, 18), ["DOB0", "DOB3"])


def wide() -> Module:
    """Return a block RAM whose port B reads through the outputs of both."""
    return module(block_ram(36, 36), ["DOA0", "DOA17", "DOB5"])


def multiplier() -> Module:
    pins: dict[str, Bit] = {"A0": 10, "B0": 11}
    return module(cell("MULT18X18D", {}, pins, set()), ["P0", "P1", "P35"])


@pytest.mark.parametrize(
    ("made", "parameters", "pins"),
    [
        (halves, {"REGMODE_A": "NOREG", "REGMODE_B": "OUTREG"}, {"OCEA": "0", "OCEB": "1"}),
        (wide, {"REGMODE_A": "OUTREG", "REGMODE_B": "OUTREG"}, {"OCEA": "1", "OCEB": "1"}),
        (multiplier, {"REG_OUTPUT_CLK": "CLK0"}, {"CLK0": CLOCK, "CE0": "1", "RST0": "0"}),
    ],
)
def test_registers_of_all_used_outputs_move_into_the_block(
    made: Callable[[], Module], parameters: dict[str, str], pins: dict[str, Bit]
) -> None:
    before = made()
    netlist = {"modules": {"top": copy.deepcopy(before), "other": copy.deepcopy(before)}}
    count = len(before["cells"]) - 1
    assert absorb({"modules": {**netlist["modules"]}}, "top") == count
    after = netlist["modules"]["top"]
    assert list(after["cells"]) == ["block"]
    block = after["cells"]["block"]
    assert parameters.items() <= block["parameters"].items()
    for pin, bit in pins.items():
        assert (block["connections"][pin], block["port_directions"][pin]) == ([bit], "input")
    outputs = [bits[0] for pin, bits in block["connections"].items() if pin[:2] in ("DO", "P0")]
    assert outputs[0] == NEXT
    assert after["ports"] == before["ports"]
    assert netlist["modules"]["other"] == before
    assert absorb({"modules": {"top": after}}, "top") == 0


def connect(name: str, pin: str, bit: Bit) -> Callable[[Module], None]:
    def change(given: Module) -> None:
        given["cells"][name]["connections"][pin] = [bit]
        given["cells"][name]["port_directions"].setdefault(pin, "input")

    return change


def set_parameter(name: str, parameter: str, value: str) -> Callable[[Module], None]:
    def change(given: Module) -> None:
        given["cells"][name]["parameters"][parameter] = value

    return change


def assert_kept(given: Module, change: Callable[[Module], None]) -> None:
    change(given)
    before = copy.deepcopy(given)
    assert absorb({"modules": {"top": given}}, "top") == 0
    assert given == before


def read_twice(given: Module) -> None:
    given["cells"]["lut"] = cell("LUT4", {}, {"A": OUTPUT, "Z": 50}, {"Z"})


def read_outside(given: Module) -> None:
    given["ports"]["o"]["bits"].append(OUTPUT)


def read_by_logic(given: Module) -> None:
    del given["cells"]["register_1"]
    given["cells"]["lut"] = cell("LUT4", {}, {"A": OUTPUT + 1, "Z": 50}, {"Z"})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(read_twice, id="read twice"),
        pytest.param(read_outside, id="read outside"),
        pytest.param(read_by_logic, id="one without a register"),
        pytest.param(connect("register_1", "LSR", RESET), id="reset"),
        pytest.param(connect("register_1", "CLK", OTHER_CLOCK), id="two clocks"),
        pytest.param(set_parameter("register_1", "CEMUX", "CE"), id="enable"),
        pytest.param(set_parameter("register_1", "REGSET", "SET"), id="begins as 1"),
        pytest.param(set_parameter("register_1", "CLKMUX", "INV"), id="falling edge"),
        pytest.param(set_parameter("register_1", "LSRMUX", "INV"), id="always reset"),
    ],
)
@pytest.mark.parametrize("made", [halves, wide, multiplier])
def test_one_register_that_is_not_plain_keeps_all_where_they_are(
    made: Callable[[], Module], change: Callable[[Module], None]
) -> None:
    assert_kept(made(), change)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(connect("block", "CEB", ENABLE), id="enabled at times"),
        pytest.param(connect("block", "RSTB", RESET), id="reset"),
        pytest.param(connect("block", "CLKB", OTHER_CLOCK), id="another clock"),
        pytest.param(set_parameter("block", "CLKBMUX", "INV"), id="falling edge"),
        pytest.param(set_parameter("block", "REGMODE_B", "OUTREG"), id="in use already"),
    ],
)
@pytest.mark.parametrize("made", [halves, wide])
def test_a_port_that_is_not_plain_takes_no_register(
    made: Callable[[], Module], change: Callable[[Module], None]
) -> None:
    assert_kept(made(), change)
