"""Distance of activation units from the exact staircase, over all values: a Markdown table.

python scripts/unit_errors.py    # ReLU, every exponent from 0.25 to 1 in steps of 0.05
"""

import argparse
from itertools import product

import numpy as np

from hwquant import activation
from hwquant.golden.staircase import staircase_of
from hwquant.ir import Thresholds
from hwquant.power import Grid, activation_codebook

EXPONENTS = [round(0.05 * step, 2) for step in range(5, 21)]
KINDS: tuple[activation.Kind, ...] = ("table", "pade", "newton")
HEAD = ("bits", "unit", "permitted", "largest error in steps", "in codes", "values that differ")


def distance(exact: Thresholds, kind: activation.Kind, most: int) -> tuple[int, int, float]:
    """Return the largest error in steps of the staircase and in codes, and where there is one.

    Where a small exponent has several codes begin at the same integer, a step skips codes.
    """
    made = activation.fit([exact], kind, most)[0]
    if made is exact:
        raise SystemExit(f"{kind}: no unit for {exact}")
    values = np.arange(exact.thresholds[-1] + 1)  # beyond its steps nothing changes
    codes, wanted = (staircase_of(unit)(values.copy()).astype(int) for unit in (made, exact))
    ranks, exact_ranks = (np.searchsorted(exact.codes, found) for found in (codes, wanted))
    steps = int(np.abs(ranks - exact_ranks).max())
    return steps, int(np.abs(codes - wanted).max()), float((codes != wanted).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--max-code-error", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for bits, kind, most in product(options.bits, KINDS, options.max_code_error):
        found: list[tuple[int, int, float]] = []
        for exponent in EXPONENTS:
            book = activation_codebook(Grid("power", exponent, 2**bits - 1), 1, 0)
            found.append(distance(activation.thresholds(book, bits), kind, most))
        steps, codes, shares = zip(*found, strict=True)
        share = f"{min(shares):.1%} to {max(shares):.1%}" if any(shares) else "none"
        row = (str(bits), kind, str(most), str(max(steps)), str(max(codes)), share)
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
