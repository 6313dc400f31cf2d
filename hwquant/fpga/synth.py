"""Synthesize a build directory with yosys, place and route it with nextpnr.

Results go to ``DIR/synth/DEVICE/``: ``netlist.v``, ``netlist.json`` and ``stat.json`` of the whole
design, ``mac_array.json`` with the cells of the MAC array alone. A file appears under its name only
when it is complete. Numbers come from yosys' and nextpnr's JSON, never from their logs.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from hwquant.errors import BadInput, ToolFailed
from hwquant.fpga.devices import SPRAM_RULE, Counts, Device, count_cells, find_device, has_sprams
from hwquant.fpga.nextpnr import Fabric, nextpnr_version, run_nextpnr, run_packer
from hwquant.fpga.output_registers import Netlist, absorb
from hwquant.toolchain import run_yosys, yosys_version

_TARGET_MHZ = 200  # above what is hoped for: nextpnr stops trying once it is met


@dataclass(frozen=True)
class _Routing:
    """How nextpnr is told about pins, and what it calls things."""

    without_pins: tuple[str, ...]
    with_pins: tuple[str, ...]
    write: str  # the option that names the file it writes
    routed: str  # its suffix
    packed: str  # that of a bitstream
    cells: str  # LUT sites


_ROUTING: dict[Fabric, _Routing] = {
    "ecp5": _Routing(
        without_pins=("--out-of-context", "--json", "netlist.json"),
        with_pins=("--lpf-allow-unconstrained", "--json", "netlist.json"),
        write="--textcfg",
        routed=".config",
        packed=".bit",
        cells="TRELLIS_COMB",
    ),
    "ice40": _Routing(
        without_pins=("--pcf-allow-unconstrained", "--json", "closed.json"),
        with_pins=("--pcf-allow-unconstrained", "--json", "netlist.json"),
        write="--asc",
        routed=".asc",
        packed=".bin",
        cells="ICESTORM_LC",
    ),
}


class ArrayEntry(TypedDict):
    """The MAC array as a design of its own: the files in ``rtl/``, and its MACs a cycle."""

    top: str
    verilog: list[str]
    macs: int


class PlanEntry(TypedDict):
    """The part of a plan that synthesis needs."""

    device: str | None


class Entry(TypedDict):
    """The part of ``design.json`` that synthesis needs; a unit alone has no plan."""

    schema: int
    top: str
    verilog: list[str]
    mac_array: ArrayEntry | None
    plan: NotRequired[PlanEntry]


@dataclass(frozen=True)
class SynthResult:
    """Cells of the whole design and of its MAC array, see ``synthesize``."""

    device: str
    tool: str
    design: Counts
    mac_array: Counts | None
    macs: int

    @property
    def luts_per_mac(self) -> float | None:
        """LUTs of the MAC array per multiply-accumulate a cycle."""
        return None if self.mac_array is None else self.mac_array.luts / self.macs


@dataclass(frozen=True)
class PnrResult:
    """Outcome of place and route; ``fmax_mhz`` is the median over the seeds.

    ``logic_cells`` are the placed LUT sites (a carry bit occupies one too, and a flip-flop alone
    one of an iCE40) of the first seed. Only paths from register to register are timed, because the
    design is placed out of context.
    """

    device: str
    tool: str
    fmax_mhz: float
    fmax_mhz_seeds: tuple[float, ...]
    logic_cells: int


def synthesize(
    directory: Path, device: str, *, top: str | None = None, array_dsp: bool = False
) -> SynthResult:
    """Synthesize ``top`` (default: the design's) and the MAC array for a device.

    The array is counted without DSP blocks, but for those that the Verilog names, unless
    ``array_dsp``, so that arrays compare. Where it names any, an iCE40 has no others. Registers of
    an ECP5 design move into its blocks (`output_registers`), but not those of the array alone.
    Activations lie in SPRAMs if the design was made for a device that has them.

    Raises
    ------
    BadInput
        If the device is unknown or ``directory`` no build directory.
    ToolFailed
        If yosys stops with an error.
    """
    target = find_device(device)
    design = _read_design(directory)
    rtl, folder = directory.resolve() / "rtl", directory.resolve() / "synth" / device
    folder.mkdir(parents=True, exist_ok=True)
    made_for = design["plan"]["device"] if "plan" in design else None
    whole, with_dsp = top or design["top"], _with_dsp(rtl, design["verilog"], target)
    command = f"{target.synth} {with_dsp}"
    to_sprams = _to_sprams(folder) if target.sprams and has_sprams(made_for) else []
    mapping = _mapping(design["verilog"], whole, command, target.flat, to_sprams)
    _write_netlist(rtl, folder, mapping, whole, target)
    array = design.get("mac_array")
    if array is not None:
        command = f"{target.synth} {with_dsp if array_dsp else target.no_dsp}"
        mapping = _mapping(array["verilog"], array["top"], command, target.flat)
        _count_array(rtl, folder, mapping)
    return read_synthesis(directory, device)


def read_synthesis(directory: Path, device: str) -> SynthResult:
    """Return the result of a ``synthesize`` that has run before."""
    target = find_device(device)
    folder = directory / "synth" / device
    array = _read_design(directory).get("mac_array")
    return SynthResult(
        device=device,
        tool=f"yosys {yosys_version()}",
        design=_counts(folder / "stat.json", target),
        mac_array=None if array is None else _counts(folder / "mac_array.json", target),
        macs=0 if array is None else array["macs"],
    )


def place_and_route(directory: Path, device: str, seeds: Sequence[int]) -> PnrResult:
    """Place and route the netlist that ``synthesize`` left, once for every seed.

    Raises
    ------
    BadInput
        If there is no place and route for the device, no netlist, or no seed.
    ToolFailed
        If it does not fit, or nextpnr stops with another error.
    """
    fabric, folder = routable(device), directory.resolve() / "synth" / device
    if not seeds:
        raise BadInput("seeds: place and route needs at least one")
    _require_netlist(folder, device)
    if fabric == "ice40":
        _close_ports(folder)
    reports = [_measured(folder, device, fabric, seed) for seed in seeds]
    fmax = tuple(_fmax_mhz(report, folder) for report in reports)
    return PnrResult(
        device=device,
        tool=f"nextpnr-{fabric} {nextpnr_version(fabric)}",
        fmax_mhz=statistics.median(fmax),
        fmax_mhz_seeds=fmax,
        logic_cells=reports[0]["utilization"][_ROUTING[fabric].cells]["used"],
    )


def write_bitstream(directory: Path, device: str) -> Path:
    """Place and route once, pins wherever they go, and return the bitstream.

    It shows that the flow ends; on no board are the pins where nextpnr puts them.

    Raises
    ------
    BadInput
        If there is no place and route for the device, or no netlist.
    ToolFailed
        If it does not fit, the package has too few pins, or a tool stops with another error.
    """
    fabric, folder = routable(device), directory.resolve() / "synth" / device
    routing = _ROUTING[fabric]
    _require_netlist(folder, device)
    routed, packed = f"routed{routing.routed}", f"accelerator{routing.packed}"
    log = folder / "bitstream.log"
    _run(folder, device, fabric, [*routing.with_pins, routing.write, routed], log)
    run_packer(fabric, routed, f"new.{packed}", log=folder / "pack.log", cwd=folder)
    return (folder / f"new.{packed}").rename(folder / packed)


def routable(device: str) -> Fabric:
    """Return which nextpnr routes a device."""
    target = find_device(device)
    if not target.nextpnr or target.family not in _ROUTING:
        raise BadInput(f"{device}: place and route exists for ECP5 and iCE40 only")
    return target.family


def _read_design(directory: Path) -> Entry:
    file = directory / "design.json"
    if not file.is_file():
        raise BadInput(f"{directory}: no design.json, so not a build directory of hwquant gen")
    design = json.loads(file.read_text())
    if design.get("schema") != 1:
        raise BadInput(f"{file}: schema {design.get('schema')}, this version reads 1")
    return cast(Entry, design)


def _mapping(
    verilog: Sequence[str], top: str, command: str, flat: bool, first: Sequence[str] = ()
) -> list[str]:
    """Return the commands that make a flat netlist; ``$readmemh`` finds its files in ``rtl``.

    ``first`` are those that map before the others.
    """
    return [
        *(f"read_verilog {name}" for name in verilog),
        f"hierarchy -top {top}",  # blocks are known to the command that follows, and checked there
        *(["setattr -mod -unset keep_hierarchy"] if flat else []),
        *first,
        f"{command.strip()} -top {top}",
        # modules that were kept apart have been mapped once; now they multiply
        "setattr -mod -unset keep_hierarchy",
        "flatten",
        "clean",
    ]


def _with_dsp(rtl: Path, verilog: Sequence[str], target: Device) -> str:
    """Return the option with which multipliers become blocks; none where they must not."""
    texts = [(rtl / name).read_text() for name in verilog]
    are_named = target.block is not None and any(f" {target.block} " in text for text in texts)
    return target.with_dsp if target.infers_blocks(are_named=are_named) else ""


def _to_sprams(folder: Path) -> list[str]:
    """Return the commands that put activation memories into SPRAMs; their rule is in ``folder``."""
    (folder / "spram.v").write_text(SPRAM_RULE)
    rule = f"../synth/{folder.name}/spram.v"
    return ["proc", "opt_clean", "memory -nomap", f"techmap -autoproc -map {rule} *.activations"]


def _write_netlist(
    rtl: Path, folder: Path, mapping: Sequence[str], top: str, target: Device
) -> None:
    """Map the design; what is placed, counted and simulated are one netlist."""
    draft = folder / "new.netlist.json"
    there = f"../synth/{folder.name}"  # relative: yosys takes no spaces in a path
    commands = [*mapping, f"write_json {there}/{draft.name}"]
    run_yosys(commands, log=folder / "stat.log", cwd=rtl)
    if target.family == "ecp5":
        netlist = cast(Netlist, json.loads(draft.read_text()))
        absorb(netlist, top)
        draft.write_text(json.dumps(netlist))
    commands = [
        f"read_json {draft.name}",
        "tee -q -o new.stat.json stat -json",
        "write_verilog -noattr new.netlist.v",
    ]
    run_yosys(commands, log=folder / "netlist.log", cwd=folder)
    for name in ("stat.json", "netlist.v", "netlist.json"):
        (folder / f"new.{name}").rename(folder / name)


def _count_array(rtl: Path, folder: Path, mapping: Sequence[str]) -> None:
    count = f"tee -q -o ../synth/{folder.name}/new.mac_array.json stat -json"
    run_yosys([*mapping, count], log=folder / "mac_array.log", cwd=rtl)
    (folder / "new.mac_array.json").rename(folder / "mac_array.json")


def _counts(stat: Path, target: Device) -> Counts:
    if not stat.is_file():
        raise BadInput(f"{stat}: not there; synthesize first")
    return count_cells(target.family, json.loads(stat.read_text())["design"]["num_cells_by_type"])


class _Fmax(TypedDict):
    achieved: float


class _Used(TypedDict):
    used: int


class _Report(TypedDict):
    fmax: dict[str, _Fmax]
    utilization: dict[str, _Used]


def _measured(folder: Path, device: str, fabric: Fabric, seed: int) -> _Report:
    report = folder / f"pnr_{seed}.json"
    draft = f"new.{report.name}"
    options = [*_ROUTING[fabric].without_pins, "--report", draft, "--seed", str(seed)]
    _run(folder, device, fabric, options, folder / f"pnr_{seed}.log")
    (folder / draft).rename(report)
    return cast(_Report, json.loads(report.read_text()))


def _run(folder: Path, device: str, fabric: Fabric, options: Sequence[str], log: Path) -> None:
    common = ("--freq", str(_TARGET_MHZ), "--timing-allow-fail")
    arguments = [*find_device(device).nextpnr, *common, *options]
    run_nextpnr(fabric, arguments, log=log, cwd=folder)


def _require_netlist(folder: Path, device: str) -> None:
    if not (folder / "netlist.json").is_file():
        raise BadInput(f"{folder}: no netlist.json; synthesize for {device} first")


def _close_ports(folder: Path) -> None:
    """Leave the netlist's clock as its only pin: nextpnr-ice40 has no option for it."""
    netlist = json.loads((folder / "netlist.json").read_text())
    for module in netlist["modules"].values():
        if "top" in module["attributes"]:
            module["ports"] = {"clk": module["ports"]["clk"]}
    (folder / "closed.json").write_text(json.dumps(netlist))


def _fmax_mhz(report: _Report, folder: Path) -> float:
    if not report["fmax"]:
        raise ToolFailed(f"nextpnr: no clock in the design; see {folder}")
    return min(clock["achieved"] for clock in report["fmax"].values())
