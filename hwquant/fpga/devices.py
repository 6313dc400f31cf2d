"""FPGA devices: what they hold, how yosys makes netlists for them, how cells count and simulate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwquant.errors import BadInput
from hwquant.toolchain import yosys_share

Family = Literal["xc7", "ecp5", "ice40", "gowin"]
Block = Literal["DSP48E1", "SB_MAC16"]  # DSP blocks in which the array's products can be made


@dataclass(frozen=True)
class Device:
    """Capacity of a device; ``brams`` hold ``bram_kbit`` each, ``sprams`` 256.

    ``synth`` is the yosys command, to which ``no_dsp`` or ``with_dsp`` is added. ``nextpnr`` are
    the options that choose the device for place and route, empty where there is none. ``flat``:
    repeated modules dissolve before mapping, which saves 11 % of a 16x16 array's LUT4, but costs
    28 % more LUT6, since abc then misses the wide multiplexers of the product tables. ``block`` is
    the DSP block in which the array's products can be made, if there is one.
    """

    family: Family
    luts: int
    ffs: int
    brams: int
    bram_kbit: int
    dsps: int
    synth: str
    with_dsp: str = ""
    no_dsp: str = ""
    nextpnr: tuple[str, ...] = ()
    flat: bool = True
    sprams: int = 0
    block: Block | None = None

    @property
    def lut_inputs(self) -> int:
        """Inputs of a LUT."""
        return 6 if self.family == "xc7" else 4

    def infers_blocks(self, *, are_named: bool) -> bool:
        """Whether multipliers become DSP blocks too, in Verilog that names blocks or does not.

        An iCE40 has too few blocks for both, and the pass of yosys 0.70 that makes blocks of
        multipliers (``ice40_dsp``) disconnects ``C`` and ``D`` of those that are named.
        """
        return self.dsps > 0 and not (self.with_dsp and are_named)


_XC7 = "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf"
_ECP5 = "synth_ecp5"
_PACKAGE = ("--package", "CABGA381")

DEVICES = {
    "xc7a35t": Device(
        "xc7", 20800, 41600, 50, 36, 90, _XC7, no_dsp="-nodsp", flat=False, block="DSP48E1"
    ),
    "xc7a100t": Device(
        "xc7", 63400, 126800, 135, 36, 240, _XC7, no_dsp="-nodsp", flat=False, block="DSP48E1"
    ),
    "lfe5u-25f": Device(
        "ecp5", 24288, 24288, 56, 18, 28, _ECP5, no_dsp="-nodsp", nextpnr=("--25k", *_PACKAGE)
    ),
    "lfe5u-45f": Device(
        "ecp5", 43848, 43848, 108, 18, 72, _ECP5, no_dsp="-nodsp", nextpnr=("--45k", *_PACKAGE)
    ),
    "lfe5u-85f": Device(
        "ecp5", 83640, 83640, 208, 18, 156, _ECP5, no_dsp="-nodsp", nextpnr=("--85k", *_PACKAGE)
    ),
    "ice40up5k": Device(
        "ice40",
        5280,
        5280,
        30,
        4,
        8,
        "synth_ice40 -device u",
        with_dsp="-dsp",
        nextpnr=("--up5k", "--package", "sg48"),
        sprams=4,
        block="SB_MAC16",
    ),
    "ice40hx8k": Device(
        "ice40",
        7680,
        7680,
        32,
        4,
        0,
        "synth_ice40 -device hx",
        nextpnr=("--hx8k", "--package", "ct256"),
    ),
    "gw2a-18": Device(
        "gowin", 20736, 15552, 46, 18, 48, "synth_gowin -family gw2a -noiopads", no_dsp="-nodsp"
    ),
}

SPRAM_WORDS = 1 << 14  # of iCE40 UltraPlus: 256 kbit, one port that reads or writes in a cycle
SPRAM_BITS = 16


DEFAULT_DEVICE = "lfe5u-25f"
"""The device of estimates, synthesis and the gateware's choices, where none is named."""

BLOCK_DEVICES = tuple(name for name, device in DEVICES.items() if device.block)
"""Devices in whose DSP blocks the array's products can be made."""


def find_device(name: str) -> Device:
    """Return a device by name."""
    if name not in DEVICES:
        raise BadInput(f"device {name!r}: hwquant knows {', '.join(DEVICES)}")
    return DEVICES[name]


def has_sprams(name: str | None) -> bool:
    """Whether a plan for this device keeps activations in SPRAMs."""
    return name is not None and find_device(name).sprams > 0


# ---------------------------------------------------------------- counting cells


@dataclass(frozen=True)
class Counts:
    """Cells of a netlist after synthesis."""

    luts: int
    carries: int
    ffs: int
    brams: int
    dsps: int
    sprams: int = 0


@dataclass(frozen=True)
class _Weights:
    """What one cell of each type adds; a type that is not named adds nothing.

    ``brams`` and ``dsps`` are in halves: a block RAM of xc7 and a DSP block of Gowin divide in two.
    """

    luts: dict[str, int]
    carries: dict[str, int]
    ffs: str  # what the name of a flip-flop starts with
    half_brams: dict[str, int]
    half_dsps: dict[str, int]


_WEIGHTS: dict[Family, _Weights] = {
    # LUT1..6 (an upper bound: two small ones may share a LUT6) and LUTs used as memory. MUXF7/8 lie
    # beside the LUTs, INV goes into them.
    "xc7": _Weights(
        luts={f"LUT{inputs}": 1 for inputs in range(1, 7)}
        | {"SRL16E": 1, "SRLC32E": 1, "RAM32M": 4, "RAM64M": 4}
        | {"RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4}
        | {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4},
        carries={"CARRY4": 1},
        ffs="FD",
        half_brams={"RAMB36E1": 2, "RAMB18E1": 1},
        half_dsps={"DSP48E1": 2},
    ),
    # A CCU2C is two LUT4 with their carries. A DPR16X4 keeps its bits in four LUT4 and takes two
    # more, whose inputs bring the write port. PFUMX and L6MUX21 lie beside the LUTs.
    "ecp5": _Weights(
        luts={"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
        carries={"CCU2C": 1},
        ffs="TRELLIS_FF",
        half_brams={"DP16KD": 2, "PDPW16KD": 2},
        half_dsps={"MULT18X18D": 2},
    ),
    # A carry shares its logic cell with a LUT where it can; how often only placement tells.
    "ice40": _Weights(
        luts={"SB_LUT4": 1},
        carries={"SB_CARRY": 1},
        ffs="SB_DFF",
        half_brams={"SB_RAM40_4K": 2, "SB_RAM40_4KNR": 2, "SB_RAM40_4KNW": 2, "SB_RAM40_4KNRNW": 2},
        half_dsps={"SB_MAC16": 2},
    ),
    # An ALU takes the place of a LUT4. MUX2_LUT5 to 8 lie beside the LUTs.
    "gowin": _Weights(
        luts={f"LUT{inputs}": 1 for inputs in range(1, 5)} | {"ALU": 1, "RAM16SDP4": 6},
        carries={"ALU": 1},
        ffs="DFF",
        half_brams={"SP": 2, "SPX9": 2, "SDPB": 2, "SDPX9B": 2, "DPB": 2, "DPX9B": 2},
        half_dsps={"MULT9X9": 1, "MULT18X18": 2, "MULT36X36": 8},
    ),
}


def count_cells(family: Family, cells: dict[str, int]) -> Counts:
    """Count the cells of a netlist, given by type as in yosys' ``stat -json``."""
    weights = _WEIGHTS[family]

    def total(weight: dict[str, int]) -> int:
        return sum(count * weight.get(cell, 0) for cell, count in cells.items())

    return Counts(
        luts=total(weights.luts),
        carries=total(weights.carries),
        ffs=sum(count for cell, count in cells.items() if cell.startswith(weights.ffs)),
        brams=-(-total(weights.half_brams) // 2),
        dsps=-(-total(weights.half_dsps) // 2),
        sprams=cells.get("SB_SPRAM256KA", 0),
    )


# ---------------------------------------------------------------- mapping to cells

# A rule of yosys' techmap. yosys itself takes SPRAMs for memories of one address only, and here
# that of the write comes before that of the read, which nobody waits for then (`placement`).
SPRAM_RULE = f"""
module \\$mem_v2 (RD_CLK, RD_EN, RD_ARST, RD_SRST, RD_ADDR, RD_DATA,
    WR_CLK, WR_EN, WR_ADDR, WR_DATA);
  parameter MEMID = "", SIZE = 0, OFFSET = 0, ABITS = 0, WIDTH = 0, INIT = 0;
  parameter RD_PORTS = 0, RD_CLK_ENABLE = 0, RD_CLK_POLARITY = 0, RD_TRANSPARENCY_MASK = 0;
  parameter RD_COLLISION_X_MASK = 0, RD_WIDE_CONTINUATION = 0, RD_CE_OVER_SRST = 0;
  parameter RD_ARST_VALUE = 0, RD_SRST_VALUE = 0, RD_INIT_VALUE = 0;
  parameter WR_PORTS = 0, WR_CLK_ENABLE = 0, WR_CLK_POLARITY = 0, WR_PRIORITY_MASK = 0;
  parameter WR_WIDE_CONTINUATION = 0;
  input RD_CLK, RD_EN, RD_ARST, RD_SRST, WR_CLK;
  input [ABITS-1:0] RD_ADDR, WR_ADDR;
  input [WIDTH-1:0] WR_EN, WR_DATA;
  output [WIDTH-1:0] RD_DATA;
  wire _TECHMAP_FAIL_ = SIZE != {SPRAM_WORDS} || RD_PORTS != 1 || WR_PORTS != 1;
  wire [WIDTH+{SPRAM_BITS}-1:0] d = WR_DATA, q;
  genvar bit;
  generate for (bit = 0; bit < WIDTH; bit = bit + {SPRAM_BITS}) begin : slice
    SB_SPRAM256KA spram (.ADDRESS(WR_EN[0] ? WR_ADDR : RD_ADDR), .WREN(WR_EN[0]),
      .DATAIN(d[bit +: {SPRAM_BITS}]), .DATAOUT(q[bit +: {SPRAM_BITS}]), .CLOCK(RD_CLK),
      .MASKWREN(4'b1111), .CHIPSELECT(1'b1), .STANDBY(1'b0), .SLEEP(1'b0), .POWEROFF(1'b1));
  end endgenerate
  assign RD_DATA = q;
endmodule
"""

# ---------------------------------------------------------------- simulating cells

# What yosys' own models leave without a function, and hwquant does not model either.
UNMODELLED: dict[Family, tuple[str, ...]] = {
    "xc7": ("RAMB18E1", "RAMB36E1"),
    "ecp5": ("ALU54B", "PDPW16KD"),
    "ice40": (),
    "gowin": ("DPB", "DPX9B", "SDPB", "SDPX9B", "MULT9X9", "MULT18X18", "MULT36X36"),
}


def simulation_models(family: Family, folder: Path) -> list[Path]:
    """Return the Verilog of a family's cells; what yosys has none of is written to ``folder``."""
    share = yosys_share()
    match family:
        case "xc7":
            return [share / "xilinx" / "cells_sim.v"]
        case "ice40" | "gowin":
            return [share / family / "cells_sim.v"]
        case "ecp5":
            own = folder / "cells_ecp5.v"
            own.write_text(_ECP5_CELLS)
            return [own, share / "lattice" / "cells_sim_ecp5.v"]  # the first of two models counts


def _pins(name: str, count: int) -> str:
    return ", ".join(f"{name}{bit}" for bit in reversed(range(count)))


_INITS = [f"INITVAL_{row:02X}" for row in range(64)]

# Models of the two ECP5 cells that yosys 0.70 has as black boxes, for the modes in which it uses
# them (share/lattice/brams_map_16kd.v, dsp_map_18x18.v) and for those of `output_registers`; any
# other mode ends the simulation or, as a parameter or pin that is missing here, stops Verilator.
_ECP5_CELLS = f"""
module MULT18X18D (input {_pins("A", 18)}, input {_pins("B", 18)}, input {_pins("C", 18)},
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CE0, RST0, output {_pins("P", 36)});
  parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0";
  parameter GSR = "ENABLED";
  wire signed [18:0] a = {{SIGNEDA & A17, {_pins("A", 18)}}};
  wire signed [18:0] b = {{SIGNEDB & B17, {_pins("B", 18)}}};
  wire signed [37:0] p = a * b;
  reg [35:0] q = 0;
  always @(posedge CLK0) if (RST0) q <= 0; else if (CE0) q <= p[35:0];
  assign {{{_pins("P", 36)}}} = REG_OUTPUT_CLK == "CLK0" ? q : p[35:0];
endmodule

module DP16KD (
    input {_pins("DIA", 18)}, input {_pins("ADA", 14)},
    input CLKA, CEA, OCEA, WEA, RSTA, CSA2, CSA1, CSA0, output {_pins("DOA", 18)},
    input {_pins("DIB", 18)}, input {_pins("ADB", 14)},
    input CLKB, CEB, OCEB, WEB, RSTB, CSB2, CSB1, CSB0, output {_pins("DOB", 18)});
  parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG", CSDECODE_A = "0b000", CSDECODE_B = "0b000";
  parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC", GSR = "AUTO", INIT_DATA = "STATIC";
  parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB", WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
  parameter [319:0] {", ".join(f"{name} = 0" for name in _INITS)};

  reg [8:0] mem [0:2047];
  wire [20479:0] init = {{{", ".join(reversed(_INITS))}}};  // 20 bits a word, of which 18 count
  integer k;
  initial for (k = 0; k < 2048; k = k + 1) mem[k] = init[(k / 2) * 20 + (k % 2) * 9 +: 9];
  localparam ISREG_A = REGMODE_A == "OUTREG", ISREG_B = REGMODE_B == "OUTREG";
  localparam ISWIDE = DATA_WIDTH_B == 36;  // port B reads through the outputs of both
  initial if (CLKAMUX != "CLKA" || CLKBMUX != "CLKB" || CSDECODE_A != "0b000"
      || CSDECODE_B != "0b000" || !ISREG_A && REGMODE_A != "NOREG"
      || !ISREG_B && REGMODE_B != "NOREG" || ISWIDE && ISREG_A != ISREG_B)
    $fatal(1, "DP16KD: a mode without a model");

  wire [13:0] ada = {{{_pins("ADA", 14)}}}, adb = {{{_pins("ADB", 14)}}};
  wire [17:0] dia = {{{_pins("DIA", 18)}}}, dib = {{{_pins("DIB", 18)}}};
  wire [35:0] da = {{dib, dia}}, db = {{18'b0, dib}};
  wire ena = CEA & ~CSA2 & ~CSA1 & ~CSA0, enb = CEB & ~CSB2 & ~CSB1 & ~CSB0;
  reg [35:0] qa = 0, qb = 0, ra = 0, rb = 0;
  always @(posedge CLKA) if (RSTA) ra <= 0; else if (OCEA) ra <= qa;
  always @(posedge CLKB) if (RSTB) rb <= 0; else if (OCEB) rb <= qb;
  wire [35:0] oa = ISREG_A ? ra : qa, ob = ISREG_B ? rb : qb;
  assign {{{_pins("DOA", 18)}}} = ISWIDE ? ob[17:0] : oa[17:0];
  assign {{{_pins("DOB", 18)}}} = ISWIDE ? ob[35:18] : ob[17:0];

  function [35:0] get(input [13:0] a, input integer w);
    case (w)
      36: get = {{mem[{{a[13:5], 2'd3}}], mem[{{a[13:5], 2'd2}}],
                 mem[{{a[13:5], 2'd1}}], mem[{{a[13:5], 2'd0}}]}};
      18: get = {{mem[{{a[13:4], 1'b1}}], mem[{{a[13:4], 1'b0}}]}};
      9: get = mem[a[13:3]];
      4: get = mem[a[13:3]][4 * a[2] +: 4];
      2: get = mem[a[13:3]][2 * a[2:1] +: 2];
      default: get = mem[a[13:3]][a[2:0]];
    endcase
  endfunction

  // What a write leaves; the wide modes have a bit of the address for every byte's enable.
  function [35:0] put(input [35:0] old, input [35:0] d, input [13:0] a, input integer w);
    integer j;
    begin
      put = d;
      if (w >= 18) for (j = 0; j < 4; j = j + 1) if (!a[j]) put[9 * j +: 9] = old[9 * j +: 9];
    end
  endfunction

  reg [35:0] newa, newb;
  `define DP16KD_PORT(CLK, EN, WE, RST, ADDRESS, WIDTH, D, NEW, Q, MODE) \\
    always @(posedge CLK) begin \\
      NEW = put(get(ADDRESS, WIDTH), D, ADDRESS, WIDTH); \\
      if (EN && WE && !RST) case (WIDTH) \\
        36: {{mem[{{ADDRESS[13:5], 2'd3}}], mem[{{ADDRESS[13:5], 2'd2}}], \\
             mem[{{ADDRESS[13:5], 2'd1}}], mem[{{ADDRESS[13:5], 2'd0}}]}} <= NEW; \\
        18: {{mem[{{ADDRESS[13:4], 1'b1}}], mem[{{ADDRESS[13:4], 1'b0}}]}} <= NEW[17:0]; \\
        9: mem[ADDRESS[13:3]] <= NEW[8:0]; \\
        4: mem[ADDRESS[13:3]][4 * ADDRESS[2] +: 4] <= NEW[3:0]; \\
        2: mem[ADDRESS[13:3]][2 * ADDRESS[2:1] +: 2] <= NEW[1:0]; \\
        default: mem[ADDRESS[13:3]][ADDRESS[2:0]] <= NEW[0]; \\
      endcase \\
      if (RST) Q <= 0; \\
      else if (EN && !WE) Q <= get(ADDRESS, WIDTH); \\
      else if (EN && MODE == "READBEFOREWRITE") Q <= get(ADDRESS, WIDTH); \\
      else if (EN && MODE == "WRITETHROUGH") Q <= NEW; \\
    end \\
    always @(posedge RST) if (RESETMODE == "ASYNC") $fatal(1, "DP16KD: no asynchronous reset");
  `DP16KD_PORT(CLKA, ena, WEA, RSTA, ada, DATA_WIDTH_A, da, newa, qa, WRITEMODE_A)
  `DP16KD_PORT(CLKB, enb, WEB, RSTB, adb, DATA_WIDTH_B, db, newb, qb, WRITEMODE_B)
endmodule
"""
