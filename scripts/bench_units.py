"""Price of activation units, and of a tree of parallel comparators: a Markdown table."""

import argparse
import tempfile
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
from amaranth.hdl import Module, Signal

from hwquant import activation
from hwquant.emit import emit_unit
from hwquant.float_graph import Silu
from hwquant.fpga.synth import place_and_route, synthesize
from hwquant.functions import bounds
from hwquant.gateware.component import Component
from hwquant.gateware.power_activation import create
from hwquant.gateware.unit_data import unit_ports
from hwquant.golden.staircase import staircase_of
from hwquant.ir import Thresholds
from hwquant.power import Grid, activation_codebook
from hwquant.scheduler.plan import activation_delay

DEVICES = {"ECP5": "lfe5u-25f", "xc7": "xc7a35t", "iCE40": "ice40hx8k"}
KINDS = get_args(activation.Kind)[:-1]  # but auto
VALUE_BITS = 20
HEAD = ("function", "bits", "kind", "largest error", "cycles", "model", "ROM kbit")


class Tree(Component):
    """As many comparators as thresholds, and the sum of what they say: steps up less steps down."""

    def __init__(self, record: Thresholds, code_bits: int) -> None:
        self.record = record
        super().__init__(unit_ports(1, VALUE_BITS, code_bits))

    def elaborate(self, platform: object) -> Module:  # noqa: ARG002  # Amaranth's
        m = Module()
        held = Signal.like(self.value)
        steps = list(zip(self.record.thresholds, np.diff(self.record.codes), strict=True))
        up, down = (sum(held >= at for at, step in steps if step == way) for way in (1, -1))
        m.d.sync += [held.eq(self.value), self.code.eq(self.record.codes[0] + up - down)]
        return m


def oracle(name: str, bits: int, exponent: float = 0.55) -> Thresholds:
    book = activation_codebook(Grid("power", exponent, 2**bits - 1), 1, 0)
    if name == "ReLU":
        return activation.thresholds(book, bits)
    zero = bounds(Silu())[0]
    return activation.function_thresholds(Silu(), book, zero, 4.0 - zero, bits)[0]


def price(unit: Component, folder: Path, seeds: int) -> list[str]:
    files = emit_unit(unit, folder)
    words = [word for file in files for word in (folder / "rtl" / file).read_text().split()]
    cells = [f"{sum(map(len, words)) / 256:.1f}"]
    for found in (synthesize(folder, device).design for device in DEVICES.values()):
        counts = (found.luts, found.carries, found.ffs, found.brams, found.dsps)
        cells.append(" / ".join(map(str, counts)))
    if seeds:
        found = place_and_route(folder, DEVICES["ECP5"], range(1, seeds + 1))
        cells.append(f"{found.fmax_mhz:.0f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--functions", nargs="+", default=["ReLU", "SiLU"])
    parser.add_argument("--max-code-error", type=int, nargs="+", default=[0])
    parser.add_argument("--kinds", nargs="+", default=["tree", *KINDS])
    parser.add_argument("--seeds", type=int, default=0, help="of nextpnr, for Fmax on ECP5")
    options = parser.parse_args()
    cells = [f"{name} LUT / carry / FF / BRAM / DSP" for name in DEVICES]
    columns = [*HEAD, *cells, *["ECP5 MHz"] * bool(options.seeds)]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, bits, kind in product(options.functions, options.bits, options.kinds):
        given = oracle(name, bits)
        v = np.arange(given.thresholds[0] - 1, given.thresholds[-1] + 1)
        for most in options.max_code_error if kind in KINDS[1:] else [0]:
            made = given if kind == "tree" else activation.fit([given], kind, most)[0]
            if kind in ("pade", "newton") and made is given:
                continue
            unit = Tree(given, bits) if kind == "tree" else create([made], VALUE_BITS, bits)
            row = [2, ""] if kind == "tree" else [activation_delay(made), activation.cost(made)]
            codes, exact = (staircase_of(u)(v.copy()).astype(int) for u in (made, given))
            with tempfile.TemporaryDirectory() as folder:
                row += price(unit, Path(folder), options.seeds)
            row = [name, bits, kind, np.abs(codes - exact).max(), *row]
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
