"""Print what several solvers find for eq. 3 (PowerQuant, table 6), as a Markdown table.

python scripts/solvers.py ../shared/models/resnet20_cifar10.onnx ../shared/models/mlperf_sww.onnx
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from hwquant.importer.load import load
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.exponent import (
    HIGHEST,
    LOWEST,
    START,
    TOLERANCE,
    Error,
    find_minimum,
    weight_error,
)
from hwquant.quantizer.quantize import search_sites

BOUNDS = [(LOWEST, HIGHEST)]


def start_at(method: str, **options: float) -> Callable[[Error], float]:
    """A solver of scipy's that starts where `find_minimum` does."""

    def solve(error: Error) -> float:
        def of_vector(x: np.ndarray) -> float:
            return error(float(x[0]))

        found = minimize(of_vector, [START], method=method, bounds=BOUNDS, options=options)
        return float(found.x[0])

    return solve


def brent(error: Error) -> float:
    options = {"xatol": TOLERANCE}
    return float(minimize_scalar(error, bounds=BOUNDS[0], method="bounded", options=options).x)


def grid(error: Error) -> float:
    count = round((HIGHEST - LOWEST) / TOLERANCE) + 1
    return min(np.linspace(LOWEST, HIGHEST, count).tolist(), key=error)


SOLVERS: dict[str, Callable[[Error], float]] = {
    "Nelder-Mead": find_minimum,
    "Powell": start_at("Powell", xtol=TOLERANCE),
    "COBYLA": start_at("COBYLA", rhobeg=0.1, tol=TOLERANCE),
    "bounded Brent": brent,
    "grid": grid,
}


def row(network: str, name: str, error: Error) -> str:
    """One line of the table: exponent, error and number of evaluations."""
    asked = list[float]()

    def counted(exponent: float) -> float:
        asked.append(exponent)
        return error(exponent)

    exponent = SOLVERS[name](counted)
    return f"| {network} | {name} | {exponent:.4f} | {error(exponent):.5f} | {len(asked)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="ONNX networks with fixed sizes")
    parser.add_argument("--weight-bits", type=int, default=4)
    parser.add_argument("--norm", type=float, default=2.0, help="p of eq. 3; inf too")
    given = parser.parse_args()
    config = QuantConfig(weight_bits=given.weight_bits, search="weights", norm=given.norm)
    print("| network | solver | exponent | error | evaluations |\n|---|---|---:|---:|---:|")
    for model in given.models:
        sites = search_sites(load(model), config)
        error = weight_error(sites, 2 ** (config.weight_bits - 1) - 1, config.norm)
        for name in SOLVERS:
            print(row(model.stem, name, error))


if __name__ == "__main__":
    main()
