"""Power-activation units are proved: yosys' SAT solver finds no value with another code.

The netlist's flip-flops become wires, which a pipeline without feedback does not notice: its code
is what a value makes of it that is held. That code and value meet in time is for the benches.
"""

from pathlib import Path

import pytest

from hwquant.activation import thresholds
from hwquant.errors import ToolFailed
from hwquant.gateware.power_activation import create
from hwquant.gateware.shared import Library, to_rtlil
from hwquant.ir import Activation, Thresholds
from hwquant.power import Grid, activation_codebook
from hwquant.toolchain import run_yosys, verilog_from_rtlil
from tests.forms import Form, fitted
from tests.gateware.test_power_activation import sabotaged

pytestmark = pytest.mark.synth

VALUE_BITS = 24  # 2**24 values, beyond what a bench passes through
WIRES = """
module \\$dff (CLK, D, Q);
  parameter WIDTH = 1, CLK_POLARITY = 1;
  input CLK;
  input [WIDTH-1:0] D;
  output [WIDTH-1:0] Q;
  assign Q = D;
endmodule
"""


def oracle(bits: int) -> Thresholds:
    return thresholds(activation_codebook(Grid("power", 0.55, 2**bits - 1), 1, 0), bits)


def specification(record: Thresholds, code_bits: int) -> str:
    """Return a module that counts the thresholds a value reaches, the codes of ReLU."""
    assert record.codes == tuple(range(len(record.codes)))
    reached = "\n    + ".join(f"(value >= 24'sd{t})" for t in record.thresholds)
    port = f"input signed [{VALUE_BITS - 1}:0] value, output [{code_bits - 1}:0] code"
    return f"module specification({port});\n  assign code = {reached};\nendmodule\n"


def prove(record: Activation, given: Thresholds, folder: Path) -> None:
    code_bits = max(given.codes).bit_length()
    unit = create([record], VALUE_BITS, code_bits)
    verilog_from_rtlil(to_rtlil(unit, "unit", Library()), folder / "unit.v")
    (folder / "specification.v").write_text(specification(given, code_bits))
    (folder / "wires.v").write_text(WIRES)
    run_yosys(
        [
            "read_verilog unit.v",
            "proc",
            "memory",
            "opt_dff",
            "dffunmap",
            "setattr -unset init unit/w:*",
            "techmap -map wires.v",
            "delete -input unit/clk unit/rst",
            "setundef -undriven -zero unit",
            "read_verilog specification.v",
            "proc",
            "miter -equiv -flatten -make_assert unit specification both",
            "opt both",
            "sat -verify -prove-asserts -show-inputs both",
        ],
        log=folder / "proof.log",
        cwd=folder,
    )


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("thresholds", 2),
        ("thresholds", 8),
        ("table", 8),
        ("table", 4),
        ("slopes", 8),
        ("slopes", 4),
        ("pade", 4),
        ("newton", 4),
    ],
)
def test_unit_is_exact_for_all_of_2_to_the_24_values(kind: Form, bits: int, tmp_path: Path) -> None:
    prove(fitted([oracle(bits)], kind)[0], oracle(bits), tmp_path)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("thresholds", 2), ("thresholds", 4), ("table", 4), ("slopes", 4), ("pade", 4), ("newton", 4)],
)
def test_a_sabotaged_unit_is_refuted(kind: Form, bits: int, tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="proof did fail"):
        prove(sabotaged(fitted([oracle(bits)], kind)[0]), oracle(bits), tmp_path)
