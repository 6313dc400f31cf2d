"""Price of thresholds that are compared all at once, beside a search: a Markdown table.

python scripts/bench_thresholds.py    # ReLU, by number of thresholds and of staircases
"""

import argparse
import tempfile
from dataclasses import astuple
from itertools import product
from pathlib import Path

from hwquant import activation
from hwquant.emit import emit_unit
from hwquant.fpga.synth import synthesize
from hwquant.gateware.threshold_compare import ThresholdCompare
from hwquant.gateware.threshold_search import ThresholdSearch
from hwquant.ir import Thresholds
from hwquant.power import Grid, activation_codebook

DEVICES = {"ECP5": "lfe5u-25f", "xc7": "xc7a35t", "iCE40": "ice40hx8k"}
EXPONENTS = (0.55, 0.4, 0.7, 0.85)  # of the staircases that share a unit
VALUE_BITS = 20
UNITS = {"all at once": ThresholdCompare, "search": ThresholdSearch}


def staircase(exponent: float, count: int) -> Thresholds:
    book = activation_codebook(Grid("power", exponent, count), 1, 0)
    return activation.thresholds(book, count.bit_length())


def price(unit: ThresholdCompare | ThresholdSearch, device: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        emit_unit(unit, Path(name))
        return " / ".join(map(str, astuple(synthesize(Path(name), device).design)[:3]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--thresholds", type=int, nargs="+", default=[3, 4, 5, 6, 7, 15])
    parser.add_argument("--staircases", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    head = ("thresholds", "staircases", "unit", *(f"{name} LUT / carry / FF" for name in DEVICES))
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for count, many, name in product(options.thresholds, options.staircases, UNITS):
        records = [staircase(exponent, count) for exponent in EXPONENTS[:many]]
        unit = UNITS[name](records, VALUE_BITS, count.bit_length())
        cells = [price(unit, device) for device in DEVICES.values()]
        print(f"| {count} | {many} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
