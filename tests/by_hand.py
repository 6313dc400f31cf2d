"""Networks written by hand: 3-bit weights, 2-bit activations, pixels that are packed codes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwquant.ir import (
    INPUT,
    Arithmetic,
    InputCodes,
    Layer,
    MacLayer,
    ProductTable,
    QuantGraph,
    Tensor,
)
from tests.random_graphs import PROVENANCE

TIMES = ProductTable(
    np.outer(np.arange(4), np.arange(4))
)  # exact products of 3-bit and 2-bit codes
DETAILS = np.array([[0, 10, 20, 40], [-3, 0, 4, 5]])


def tensor(name: str, shape: tuple[int, int, int], parts: int = 1, pad: int = 0) -> Tensor:
    return Tensor(name, *shape, parts, np.full(shape[0], pad))


def network(
    source: Tensor,
    layers: Sequence[Layer],
    arithmetic: Arithmetic = TIMES,
    part_shift: int = 2,
    skip_shift: int = 0,
) -> QuantGraph:
    """Build a network of 3-bit weights and 2-bit activations whose pixels are packed codes."""
    bits = 2 * source.parts
    table = np.arange(1 << bits)
    table[0] = source.is_detailed  # a detailed code of two zeros stands for less than 0
    levels = np.array([0, 1, 2, 3])
    return QuantGraph(
        weight_bits=3,
        act_bits=2,
        part_shift=part_shift,
        arithmetic=arithmetic,
        skip_levels=levels,
        detail_tables=DETAILS,
        skip_shift=skip_shift,
        input=InputCodes(bits, 0, table[np.newaxis], source),
        layers=tuple(layers),
        provenance=PROVENANCE,
    )


def mac(weights: Any, out: tuple[int, int, int], name: str = "last", **changed: Any) -> MacLayer:
    """Build a layer of ``weights[PW, M, C, KH, KW]`` that leaves its accumulators as they are."""
    weights = np.array(weights)
    chosen: dict[str, Any] = {
        "source": INPUT,
        "kernel": weights.shape[3:],
        "shared": False,
        "stride": (1, 1),
        "pads": (0, 0, 0, 0),
        "multiplier": np.ones(out[0], np.int64),
        "bias": np.zeros(out[0], np.int64),
        "shift": 0,
        "residual": None,
        "activation": None,
        "acc_bits": 32,
        "value_bits": 32,
        "output": tensor(name, out),
    }
    return MacLayer(name=name, weights=weights, **chosen | changed)
