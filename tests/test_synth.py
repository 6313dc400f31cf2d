"""Cells are counted by the rules of each family, and results appear only when complete."""

import importlib.util
import json
from pathlib import Path

import pytest

from hwquant.errors import BadInput, MissingTool, ToolFailed
from hwquant.fpga.devices import DEVICES, Counts, count_cells, find_device
from hwquant.fpga.synth import place_and_route, read_synthesis, synthesize, write_bitstream

# A table in a memory image, a product, a counter: one block RAM, one DSP block, carries.
TOP = """
module accelerator(input clk, input rst, input [7:0] a, output reg [15:0] p, output reg [15:0] t,
    output reg [9:0] n);
  reg [15:0] rom [0:1023];
  initial $readmemh("mem/rom.mem", rom);
  always @(posedge clk) begin
    n <= rst ? 0 : n + a;
    t <= rom[n];
    p <= a * t[7:0];
  end
endmodule
"""
ARRAY = """
module mac_array(input clk, input [7:0] a, input [7:0] b, output reg [15:0] p);
  always @(posedge clk) p <= a * b;
endmodule
"""
DESIGN = {
    "schema": 1,
    "top": "accelerator",
    "verilog": ["accelerator.v"],
    "mac_array": {"top": "mac_array", "verilog": ["mac_array.v"], "macs": 4},
}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    directory = tmp_path / "a build"  # with a space in its path
    (directory / "rtl" / "mem").mkdir(parents=True)
    (directory / "rtl" / "accelerator.v").write_text(TOP)
    (directory / "rtl" / "mac_array.v").write_text(ARRAY)
    words = (f"{(k * 40503) & 0xFFFF:04x}\n" for k in range(1024))
    (directory / "rtl" / "mem" / "rom.mem").write_text("".join(words))
    (directory / "design.json").write_text(json.dumps(DESIGN))
    return directory


def test_cells_of_xc7_count_memories_and_half_block_rams() -> None:
    cells = {"LUT2": 1, "LUT6": 10, "MUXF7": 3, "INV": 2, "SRL16E": 4, "RAM32M": 2, "CARRY4": 5}
    cells |= {"FDRE": 6, "FDSE": 1, "RAMB36E1": 2, "RAMB18E1": 3, "DSP48E1": 1, "BUFG": 1}
    assert count_cells("xc7", cells) == Counts(luts=23, carries=5, ffs=7, brams=4, dsps=1)


def test_cells_of_ecp5_count_carries_as_two_luts() -> None:
    cells = {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "PFUMX": 5, "TRELLIS_FF": 7}
    cells |= {"DP16KD": 2, "MULT18X18D": 1}
    assert count_cells("ecp5", cells) == Counts(luts=28, carries=3, ffs=7, brams=2, dsps=1)


def test_cells_of_ice40_count_every_flip_flop() -> None:
    cells = {"SB_LUT4": 10, "SB_CARRY": 3, "SB_DFF": 1, "SB_DFFESR": 2, "SB_RAM40_4K": 2}
    cells |= {"SB_MAC16": 1}
    assert count_cells("ice40", cells) == Counts(luts=10, carries=3, ffs=3, brams=2, dsps=1)


def test_cells_of_ice40_count_sprams() -> None:
    counts = Counts(luts=0, carries=0, ffs=0, brams=1, dsps=0, sprams=3)
    assert count_cells("ice40", {"SB_SPRAM256KA": 3, "SB_RAM40_4K": 1}) == counts


def test_cells_of_gowin_count_alus_and_halves_of_dsp_blocks() -> None:
    cells = {"LUT1": 1, "LUT4": 10, "ALU": 3, "RAM16SDP4": 2, "MUX2_LUT5": 5, "DFFRE": 7}
    cells |= {"SDPX9B": 2, "SP": 1, "MULT9X9": 3, "MULT18X18": 1, "MULT36X36": 1}
    assert count_cells("gowin", cells) == Counts(luts=26, carries=3, ffs=7, brams=3, dsps=7)


def test_unknown_device_is_refused_with_the_known_ones(build: Path) -> None:
    with pytest.raises(BadInput, match="device 'xc7z020': hwquant knows xc7a35t, "):
        synthesize(build, "xc7z020")


def test_folder_without_design_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no design\.json"):
        synthesize(tmp_path, "xc7a35t")
    (tmp_path / "design.json").write_text('{"schema": 2}')
    with pytest.raises(BadInput, match="schema 2, this version reads 1"):
        synthesize(tmp_path, "xc7a35t")


def test_results_that_are_not_there_are_asked_for(build: Path) -> None:
    with pytest.raises(BadInput, match="synthesize first"):
        read_synthesis(build, "xc7a35t")
    with pytest.raises(BadInput, match="place and route exists for ECP5 and iCE40 only"):
        place_and_route(build, "xc7a35t", [1])
    with pytest.raises(BadInput, match="place and route exists for ECP5 and iCE40 only"):
        write_bitstream(build, "gw2a-18")
    with pytest.raises(BadInput, match="synthesize for lfe5u-25f first"):
        place_and_route(build, "lfe5u-25f", [1])


def test_failed_synthesis_leaves_no_result(build: Path) -> None:
    (build / "rtl" / "accelerator.v").write_text(TOP.replace("mem/rom.mem", "mem/none.mem"))
    with pytest.raises(ToolFailed, match=r"yosys: .*mem/none\.mem.*; see .*stat\.log"):
        synthesize(build, "lfe5u-25f")
    assert [file.name for file in (build / "synth" / "lfe5u-25f").iterdir()] == ["stat.log"]


def test_only_ecp5_and_ice40_have_place_and_route() -> None:
    families = {"ecp5", "ice40"}
    assert {name for name in DEVICES if find_device(name).nextpnr} == {
        name for name in DEVICES if find_device(name).family in families
    }


@pytest.mark.synth
@pytest.mark.parametrize("device", ["xc7a35t", "lfe5u-25f", "ice40up5k", "ice40hx8k", "gw2a-18"])
def test_design_is_counted_whole_and_its_array_alone(build: Path, device: str) -> None:
    result = synthesize(build, device)
    has_dsp = find_device(device).dsps > 0
    brams = 4 if device.startswith("ice40") else 1  # 16 kbit
    assert (result.design.brams, result.design.dsps) == (brams, int(has_dsp))
    assert result.design.carries > 0
    assert result.mac_array is not None
    assert result.mac_array.dsps == 0
    assert result.luts_per_mac == result.mac_array.luts / 4 > 10
    assert result.tool.startswith("yosys 0.")
    assert read_synthesis(build, device) == result
    files = {file.name for file in (build / "synth" / device).iterdir()}
    assert files >= {"netlist.v", "netlist.json", "stat.json", "mac_array.json"}
    assert not [name for name in files if name.startswith("new.")]


@pytest.mark.synth
def test_array_may_keep_its_dsp_blocks(build: Path) -> None:
    result = synthesize(build, "lfe5u-25f", array_dsp=True)
    assert result.mac_array is not None
    assert result.mac_array.dsps == 1


FEW_PORTS = """
module accelerator(input clk, input rst, output reg [9:0] n);
  always @(posedge clk) n <= rst ? 0 : n + 1;
endmodule
"""
# what a bitstream starts with; all of that is the same in every one
PREAMBLES = {"lfe5u-25f": b"\xff\x00", "ice40up5k": b"\xff\x00\x00\xff\x7e\xaa\x99\x7e"}


@pytest.mark.synth
@pytest.mark.parametrize("device", PREAMBLES)
def test_place_and_route_gives_the_median_of_its_seeds_and_a_bitstream(
    build: Path, device: str
) -> None:
    fabric = find_device(device).family
    if importlib.util.find_spec(f"yowasp_nextpnr_{fabric}") is None:
        pytest.skip(f"yowasp-nextpnr-{fabric} missing")
    synthesize(build, device)
    with pytest.raises(BadInput, match="at least one"):
        place_and_route(build, device, [])
    result = place_and_route(build, device, [1, 2, 3])
    assert result.fmax_mhz == sorted(result.fmax_mhz_seeds)[1] > 10
    assert len(result.fmax_mhz_seeds) == 3
    assert result.logic_cells > 0
    assert result.tool.startswith(f"nextpnr-{fabric} 0.")
    (build / "rtl" / "accelerator.v").write_text(FEW_PORTS)  # the package of the iCE40 has 39 pins
    synthesize(build, device)
    assert write_bitstream(build, device).read_bytes().startswith(PREAMBLES[device])
    files = {file.name for file in (build / "synth" / device).iterdir()}
    assert not [name for name in files if name.startswith("new.")]


MEMORY = """
module \\accelerator.activations (input clk, input we, input [13:0] w, input [19:0] d,
    input [13:0] r, output reg [19:0] q);
  (* no_rw_check *) reg [19:0] mem [0:16383];
  always @(posedge clk) begin
    if (we) mem[w] <= d;
    q <= mem[r];
  end
endmodule
module accelerator(input clk, input we, input [13:0] w, input [19:0] d, input [13:0] r,
    output [19:0] q);
  \\accelerator.activations  activations (clk, we, w, d, r, q);
endmodule
"""


@pytest.mark.synth
@pytest.mark.parametrize(
    ("plan", "brams", "sprams"), [("ice40up5k", 0, 2), ("ice40hx8k", 80, 0), (None, 80, 0)]
)
def test_activations_lie_in_sprams_where_the_plan_says_so(
    build: Path, plan: str | None, brams: int, sprams: int
) -> None:
    (build / "rtl" / "accelerator.v").write_text(MEMORY)
    design = DESIGN | {"plan": {"device": plan}, "mac_array": None}
    (build / "design.json").write_text(json.dumps(design))
    counts = synthesize(build, "ice40up5k").design
    assert (counts.brams, counts.sprams) == (brams, sprams)


@pytest.mark.synth
def test_place_and_route_without_nextpnr_names_the_tool(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesize(build, "lfe5u-25f")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingTool, match="nextpnr-ecp5 is missing: pip install"):
        place_and_route(build, "lfe5u-25f", [1])
