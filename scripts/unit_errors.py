"""Distance of activation units from the exact staircase, over all values: a Markdown table.

python scripts/unit_errors.py    # 2 to 8 bits, every exponent from 0.25 to 1 in steps of 0.05
"""

import argparse
from itertools import product

import numpy as np

from hwquant import activation
from hwquant.float_graph import Function, Gelu, HardSwish, LeakyRelu, Relu, Silu
from hwquant.functions import bounds, evaluate
from hwquant.golden.staircase import staircase_of
from hwquant.ir import Thresholds
from hwquant.power import Grid, activation_codebook

EXPONENTS = [round(0.05 * step, 2) for step in range(5, 21)]
KINDS: tuple[activation.Kind, ...] = ("table", "pade", "newton")
RANGE = 4.0  # of x, in either direction
FUNCTIONS: dict[str, Function] = {
    "ReLU": Relu(None),
    "ReLU6": Relu(0.75 * RANGE),
    "leaky ReLU": LeakyRelu(0.1),
    "SiLU": Silu(),
    "GELU": Gelu(is_tanh=False),
    "HardSwish": HardSwish(),
}
HEAD = ("function", "unit", "permitted", "largest error in codes", "values that differ")


def oracle(name: str, exponent: float, bits: int) -> Thresholds:
    function = FUNCTIONS[name]
    low, (left, right) = bounds(function)[0], evaluate(function, np.array([-RANGE, RANGE])).tolist()
    zero = low if np.isfinite(low) else left
    book = activation_codebook(Grid("power", exponent, 2**bits - 1), 1, 0)
    return activation.function_thresholds(function, book, zero, right - zero, bits)[0]


def distance(exact: Thresholds, kind: activation.Kind, most: int) -> tuple[int, float]:
    """Return the largest error in codes, and where there is one."""
    made = activation.fit([exact], kind, most)[0]
    if made is exact:
        raise SystemExit(f"{kind}: no unit for {exact}")
    values = np.arange(exact.thresholds[0] - 1, exact.thresholds[-1] + 1)  # nothing changes beyond
    codes, wanted = (staircase_of(unit)(values.copy()).astype(int) for unit in (made, exact))
    return int(np.abs(codes - wanted).max()), float((codes != wanted).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS))
    parser.add_argument("--bits", type=int, nargs="+", default=range(2, 9))
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--max-code-error", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for name, kind, most in product(options.functions, options.kinds, options.max_code_error):
        cases = product(EXPONENTS, options.bits)
        found = [distance(oracle(name, *case), kind, most) for case in cases]
        codes, shares = zip(*found, strict=True)
        share = f"{min(shares):.1%} to {max(shares):.1%}" if any(shares) else "none"
        print(f"| {name} | {kind} | {most} | {max(codes)} | {share} |", flush=True)


if __name__ == "__main__":
    main()
