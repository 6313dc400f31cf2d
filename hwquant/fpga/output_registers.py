"""Move registers that follow block RAMs and multipliers of an ECP5 netlist into them.

yosys 0.70 uses none of the output registers that DP16KD and MULT18X18D have: without its own, a
block RAM's output is valid 5.8 ns after the clock. The netlist is the JSON of ``write_json``, flat.

A register moves only where nobody can tell: every bit of a port that is used goes to the input of
one TRELLIS_FF and nowhere else; all of these have the port's clock, no enable and no reset, and
begin as 0, as the blocks' registers do; the port itself is always enabled and never reset.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

Bit = int | str  # the number of a net, or a constant: "0", "1", "x"


class Cell(TypedDict):
    """A cell; parameters are strings, of 0 and 1 where they are numbers."""

    type: str
    parameters: dict[str, str]
    port_directions: dict[str, str]
    connections: dict[str, list[Bit]]


class Port(TypedDict):
    """A port of a module."""

    direction: str
    bits: list[Bit]


class Module(TypedDict):
    """A module of a netlist."""

    ports: dict[str, Port]
    cells: dict[str, Cell]


class Netlist(TypedDict):
    """What ``write_json`` writes, as far as it matters here."""

    modules: dict[str, Module]


@dataclass(frozen=True)
class _Register:
    """A register that a block has behind ``outputs``, unused so far.

    ``clock`` is the pin of its clock; one that is not connected may have any. ``parameters`` and
    ``pins`` switch the register on, with no enable and no reset.
    """

    outputs: tuple[str, ...]
    clock: str
    parameters: dict[str, str]
    pins: dict[str, Bit]


def absorb(netlist: Netlist, top: str) -> int:
    """Change the module ``top`` of a netlist in place; return how many flip-flops are gone."""
    module = netlist["modules"][top]
    cells, users = module["cells"], _users(module)
    gone = 0
    for cell in list(cells.values()):
        for register in _registers(cell):
            followers = _followers(cells, users, cell, register)
            for pin, name in followers.items():
                flip_flop = cells.pop(name)["connections"]
                cell["connections"] |= {pin: flip_flop["Q"], register.clock: flip_flop["CLK"]}
            if followers:
                cell["connections"] |= {pin: [bit] for pin, bit in register.pins.items()}
                cell["port_directions"] |= dict.fromkeys((register.clock, *register.pins), "input")
                cell["parameters"] |= register.parameters
            gone += len(followers)
    return gone


def _users(module: Module) -> dict[Bit, list[tuple[str, str]]]:
    """Return the cells and pins that read each net; an output of the module reads too."""
    users: dict[Bit, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in module["cells"].items():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] != "output":
                for bit in bits:
                    users[bit].append((name, pin))
    for name, port in module["ports"].items():
        if port["direction"] != "input":
            for bit in port["bits"]:
                users[bit].append((name, "output"))
    return users


def _registers(cell: Cell) -> Iterator[_Register]:
    """Return the unused registers of a cell that could stand for flip-flops without a reset."""
    match cell["type"]:
        case "DP16KD":
            widths = (cell["parameters"][f"DATA_WIDTH_{side}"] for side in "AB")
            if 36 in (int(width, 2) for width in widths):
                # B reads by the outputs of both, of which the registers have the clock of B
                yield from _port_register(cell, "B", "AB")
            else:
                for side in "AB":
                    yield from _port_register(cell, side, side)
        case "MULT18X18D":
            if "REG_OUTPUT_CLK" not in cell["parameters"]:
                names = {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0"}
                outputs = tuple(f"P{bit}" for bit in range(36))
                pins: dict[str, Bit] = {"CE0": "1", "RST0": "0"}
                yield _Register(outputs, "CLK0", names | {"GSR": "DISABLED"}, pins)
        case _:
            return


def _port_register(cell: Cell, port: str, sides: str) -> Iterator[_Register]:
    pins, parameters = cell["connections"], cell["parameters"]
    is_plain = (
        pins[f"CE{port}"] == ["1"]
        and pins[f"RST{port}"] == ["0"]
        and parameters[f"CLK{port}MUX"] == f"CLK{port}"
        and all(parameters[f"REGMODE_{side}"] == "NOREG" for side in sides)
    )
    if is_plain:
        yield _Register(
            tuple(f"DO{side}{bit}" for side in sides for bit in range(18)),
            f"CLK{port}",
            {f"REGMODE_{side}": "OUTREG" for side in sides},
            {f"OCE{side}": "1" for side in sides},
        )


def _followers(
    cells: dict[str, Cell], users: dict[Bit, list[tuple[str, str]]], cell: Cell, register: _Register
) -> dict[str, str]:
    """Return the flip-flop behind each used output, or none where one of them has to stay."""
    followers: dict[str, str] = {}
    clocks: list[list[Bit]] = []
    if register.clock in cell["connections"]:
        clocks.append(cell["connections"][register.clock])
    for pin in register.outputs:
        readers = [user for bit in cell["connections"].get(pin, []) for user in users[bit]]
        if not readers:
            continue
        name, at = readers[0]
        if len(readers) > 1 or at != "DI" or not _is_plain(cells[name]):
            return {}
        followers[pin] = name
        clocks.append(cells[name]["connections"]["CLK"])
    return followers if all(clock == clocks[0] for clock in clocks) else {}


def _is_plain(flip_flop: Cell) -> bool:
    """Whether a flip-flop has no enable and no reset, and begins as 0."""
    parameters = {name: value.strip() for name, value in flip_flop["parameters"].items()}
    wanted = {"CEMUX": "1", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}
    return (
        flip_flop["type"] == "TRELLIS_FF"
        and all(parameters.get(name) == value for name, value in wanted.items())
        and flip_flop["connections"].get("LSR", ["0"]) == ["0"]
    )
