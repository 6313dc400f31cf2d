"""Kinds of nodes that the quantizer takes as others, or refuses by name."""

from pathlib import Path

import numpy as np
import pytest

from hwquant.errors import UnsupportedModel
from hwquant.onnx_import import load
from hwquant.quantize import QuantConfig, dense, quantize
from tests.onnx_models import save

NCHW = "float[N, 3, 9, 8]"


def test_grouped_weights_are_dense_ones_among_zeros() -> None:
    weight = np.random.default_rng(1).normal(size=(6, 2, 3, 1))
    filled = dense(weight, 3)
    assert filled.shape == (6, 6, 3, 1)
    for channel in range(6):
        first = channel // 2 * 2
        np.testing.assert_array_equal(filled[channel, first : first + 2], weight[channel])
    assert np.count_nonzero(filled) == weight.size


def test_depthwise_network_is_quantized(tmp_path: Path) -> None:
    body = "c = Conv(x, w_4_3_1_1) r = Relu(c) d = Conv<group=4>(r, w_4_1_3_3) y = Relu(d)"
    graph = quantize(load(save(tmp_path, NCHW, body, rank=4)), QuantConfig())
    assert [layer.output.channels for layer in graph.layers] == [4, 4, 4]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("c = Conv(x, w_4_3_3_3) y = HardSwish(c)", r"^conv_0: HardSwish\(\) cannot be quantized"),
        ("y = Concat<axis=1>(x, x)", "^concat_0: Concat cannot be quantized yet"),
        (
            "g = GlobalAveragePool(x) y = Mul(x, g)",
            "^mul_1: Mul of two tensors cannot be quantized yet",
        ),
    ],
)
def test_what_has_no_integers_yet_is_refused_by_name(
    tmp_path: Path, body: str, message: str
) -> None:
    graph = load(save(tmp_path, NCHW, body, rank=4))
    with pytest.raises(UnsupportedModel, match=message):
        quantize(graph, QuantConfig())
