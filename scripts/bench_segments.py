"""Price of tables with and without slopes, of one staircase and of several: a Markdown table."""

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from bench_units import DEVICES, VALUE_BITS, oracle, price

from hwquant.activation.cost import table_cost
from hwquant.activation.linear import fit_linear
from hwquant.activation.table import fit_table
from hwquant.activation.window import domains
from hwquant.gateware.power_activation import create
from hwquant.scheduler.plan import activation_delay

HEAD = ("function", "bits", "staircases", "segments", "words", "cycles", "model", "ROM kbit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", nargs="+", default=["ReLU", "SiLU"])
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--staircases", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, default=0, help="of nextpnr, for Fmax on ECP5")
    options = parser.parse_args()
    cells = [f"{name} LUT / carry / FF / BRAM / DSP" for name in DEVICES]
    columns = [*HEAD, *cells, *["ECP5 MHz"] * bool(options.seeds)]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for case in product(options.functions, options.bits, options.staircases):
        name, bits, count = case
        oracles = [oracle(name, bits, 0.55 + 0.03 * at) for at in range(count)]
        given = domains(oracles, 0, [np.arange(1 << bits)] * count)
        for segments, unit in (("constant", fit_table(given)), ("linear", fit_linear(given))):
            if unit is not None:
                row = [*case, segments, len(unit[0].window.ranks), activation_delay(unit[0])]
                with tempfile.TemporaryDirectory() as folder:
                    made = create(unit, VALUE_BITS, bits)
                    row += [table_cost(unit), *price(made, Path(folder), options.seeds)]
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
