"""Power-activation units equal golden over all of 2**18 values, as Verilator runs their Verilog
and the netlists that yosys makes of it.
"""

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib.wiring import In, Out

from hwquant.activation import FULL_SCALE, fit, function_thresholds, thresholds
from hwquant.cosim import models_of
from hwquant.float_graph import Silu
from hwquant.fpga.synth import synthesize
from hwquant.functions import bounds
from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.power_activation import create
from hwquant.gateware.shared import Library, to_rtlil
from hwquant.golden.staircase import staircase_of
from hwquant.ir import Activation, Thresholds
from hwquant.power import Grid, activation_codebook
from hwquant.scheduler.plan import activation_delay
from hwquant.toolchain import run_tool, verilator_env, verilog_from_rtlil
from hwquant.verilator_model import CELL_OPTIONS, WAIVED
from tests.forms import FORMS, Form, fitted
from tests.gateware.test_power_activation import sabotaged

pytestmark = [pytest.mark.cosim, pytest.mark.slow]

VALUE_BITS = 18
BITS = range(2, 9)
EXPONENTS = (0.3, 0.55, 0.8)

BENCH = """
#include "Vunits.h"
#include "verilated.h"
#include <cstdio>
int main() {
    Vunits units;
    const int count = 1 << %d, delay = %d;
    for (int cycle = 0; cycle < count + delay; cycle++) {
        units.value = cycle - count / 2 & count - 1;
        units.clk = 0; units.eval();
        if (cycle >= delay) fwrite(&units.codes, 1, sizeof units.codes, stdout);
        units.clk = 1; units.eval();
    }
}
"""


class Units(Component):
    """Units side by side, one value for all and their codes, of a byte each, at the same time."""

    def __init__(self, records: list[Activation]) -> None:
        self._records = records
        self.delay = max(map(activation_delay, records))
        super().__init__({"value": In(signed(VALUE_BITS)), "codes": Out(8 * len(records))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for at, record in enumerate(self._records):
            m.submodules[f"unit_{at}"] = unit = create([record], VALUE_BITS, 8)
            wait = self.delay - activation_delay(record)
            code = Signal(8, name=f"code_{at}")
            m.d.comb += [
                unit.value.eq(self.value),
                code.eq(delayed(m, unit.code, wait, f"waits_{at}")),
                self.codes[8 * at : 8 * at + 8].eq(code),
            ]
        return m


def of_relu(exponent: float, bits: int) -> Thresholds:
    return thresholds(activation_codebook(Grid("power", exponent, 2**bits - 1), 1, 0), bits)


def of_silu(bits: int) -> Thresholds:
    book = activation_codebook(Grid("power", 0.55, 2**bits - 1), 1, 0)
    return function_thresholds(Silu(), book, bounds(Silu())[0], 4.0, bits)[0]


def simulated(records: list[Activation], folder: Path, device: str | None = None) -> np.ndarray:
    """Return the codes of all values, ``int[values, units]``, of the netlist for a device."""
    dut = Units(records)
    rtl = folder / "rtl"
    verilog_from_rtlil(to_rtlil(dut, "units", Library()), rtl / "units.v", memories="mem")
    (folder / "bench.cpp").write_text(BENCH % (VALUE_BITS, dut.delay))
    rules = [f"lint_off -rule {rule}" for rule in WAIVED]
    (folder / "waivers.vlt").write_text("\n".join(["`verilator_config", *rules]) + "\n")
    sources, options = [rtl / "units.v"], ["-O3", "--top-module", "units"]
    if device is not None:
        (folder / "design.json").write_text('{"schema": 1, "top": "units", "verilog": ["units.v"]}')
        synthesize(folder, device)
        netlist = folder / "synth" / device / "netlist.v"
        sources, options = [netlist, *models_of(netlist, folder)], [*options, *CELL_OPTIONS]
    options += [f"-I{folder}" for folder in sorted({source.parent for source in sources})]
    files = [str(file) for file in (folder / "waivers.vlt", *sources, folder / "bench.cpp")]
    model = folder / "model"
    run_tool(
        ["verilator", "--cc", "--exe", "--build", *options, "--Mdir", str(model), *files],
        log=folder / "build.log",
        cwd=rtl,
        env=verilator_env(),
    )
    run_tool([str(model / "Vunits")], log=folder / "codes.bin", cwd=rtl)
    read = np.fromfile(folder / "codes.bin", np.uint8)
    return read.reshape(1 << VALUE_BITS, -1)[:, : len(records)]


def assert_equal(oracles: list[Thresholds], kind: Form, folder: Path) -> None:
    """Assert that the units equal golden, and golden the oracle, for every value."""
    records = [fitted([oracle], kind)[0] for oracle in oracles]
    values = np.arange(-(1 << VALUE_BITS - 1), 1 << VALUE_BITS - 1)
    got = simulated(records, folder)
    for at, (record, oracle) in enumerate(zip(records, oracles, strict=True)):
        assert -values[0] > FULL_SCALE >= oracle.thresholds[-1]
        np.testing.assert_array_equal(got[:, at], staircase_of(record)(values.copy()), f"{record}")
        np.testing.assert_array_equal(got[:, at], staircase_of(oracle)(values.copy()), f"{record}")


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("kind", FORMS)
def test_units_of_relu_equal_golden_for_all_values(
    kind: Form, exponent: float, tmp_path: Path
) -> None:
    assert_equal([of_relu(exponent, bits) for bits in BITS], kind, tmp_path)


@pytest.mark.parametrize("kind", FORMS)
def test_units_of_silu_equal_golden_for_all_values(kind: Form, tmp_path: Path) -> None:
    assert_equal([of_silu(bits) for bits in BITS], kind, tmp_path)


def test_a_sabotaged_unit_of_any_kind_is_seen(tmp_path: Path) -> None:
    """Thresholds of 2 bits too, which are compared all at once."""
    oracles = {bits: (of_relu(0.55, bits), of_silu(bits)) for bits in (2, 4)}
    records = [fitted([oracle], kind)[0] for oracle in oracles[4] for kind in FORMS]
    records += oracles[2]
    changed = [sabotaged(record) for record in records]
    got = simulated(changed, tmp_path)
    values = np.arange(-(1 << VALUE_BITS - 1), 1 << VALUE_BITS - 1)
    golden = [np.stack([staircase_of(r)(values.copy()) for r in s], 1) for s in (records, changed)]
    np.testing.assert_array_equal(got, golden[1])
    assert (got != golden[0]).any(axis=0).all()


def test_one_changed_threshold_is_seen(tmp_path: Path) -> None:
    oracle = of_relu(0.55, 4)
    steps = list(oracle.thresholds)
    steps[7] += 1
    changed = fit([Thresholds(tuple(steps), oracle.codes)], "table")
    got = simulated(changed, tmp_path)[:, 0]
    values = np.arange(-(1 << VALUE_BITS - 1), 1 << VALUE_BITS - 1)
    wrong = values[got != staircase_of(oracle)(values.copy())]
    assert wrong.tolist() == [oracle.thresholds[7]]


@pytest.mark.synth
@pytest.mark.parametrize("device", ["lfe5u-25f", "xc7a35t", "ice40hx8k"])
def test_netlists_of_units_equal_golden_and_wrong_ones_do_not(device: str, tmp_path: Path) -> None:
    """Of 4 bits, thresholds of 2, and of 8 tables in block RAM, of which yosys has no xc7 model."""
    records = [fitted([of_relu(0.55, 4)], kind)[0] for kind in FORMS]
    assert len(set(records)) == len(FORMS)
    records.append(of_relu(0.55, 2))
    if device != "xc7a35t":
        records += [fitted([of_relu(0.55, 8)], kind)[0] for kind in ("table", "slopes")]
    changed = [sabotaged(record) for record in records]
    got = simulated([*records, *changed], tmp_path, device)
    values = np.arange(-(1 << VALUE_BITS - 1), 1 << VALUE_BITS - 1)
    golden = np.stack([staircase_of(record)(values.copy()) for record in records], axis=1)
    np.testing.assert_array_equal(got[:, : len(records)], golden)
    assert (got[:, len(records) :] != golden).any(axis=0).all()
    netlist = (tmp_path / "synth" / device / "netlist.v").read_text()
    registered = [netlist.count('"OUTREG"'), netlist.count('REG_OUTPUT_CLK("CLK0")')]
    assert all(registered) == (device == "lfe5u-25f")
