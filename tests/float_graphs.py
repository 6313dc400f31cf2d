"""Small networks as trained, made by hand, for tests of the quantizer."""

import numpy as np

from hwquant.float_graph import (
    Elu,
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatMultiply,
    FloatNode,
    FloatShortcut,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Moments,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
    sources,
)
from hwquant.ir import INPUT

SHAPE = (3, 8, 8)
NONE = (0, 0, 0, 0)

FUNCTIONS = {
    "relu": Relu(None),
    "relu6": Relu(1.0),
    "leaky": LeakyRelu(0.1),
    "elu": Elu(1.0),
    "softplus": Softplus(),
    "silu": Silu(),
    "mish": Mish(),
    "gelu": Gelu(is_tanh=False),
    "gelu tanh": Gelu(is_tanh=True),
    "hard swish": HardSwish(),
    "hard sigmoid": HardSigmoid(0.2, 0.5),
    "hard tanh": HardTanh(-1.0, 1.0),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
}


def conv(
    name: str,
    source: str,
    shape: tuple[int, int, int, int],
    stride: int = 1,
    groups: int = 1,
    moments: Moments | None = None,
) -> FloatConv:
    """Draw a convolution, padded to keep the size, whose output varies about as its input does."""
    rng = np.random.default_rng(len(name) + shape[0])
    weight = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    pad, bias = shape[2] // 2, rng.normal(0, 0.2, shape[0])
    pads, strides = (pad, shape[3] // 2, pad, shape[3] // 2), (stride, stride)
    return FloatConv(name, source, weight, bias, strides, pads, moments, groups)


def graph(*nodes: FloatNode, shape: tuple[int, int, int] = SHAPE) -> FloatGraph:
    """Make a network; its output is that of the last node."""
    shapes = {INPUT: shape}
    for node in nodes:
        shapes[node.name] = _shape(node, shapes)
    return FloatGraph("net", "0" * 64, "NCHW", nodes, shapes, nodes[-1].name)


def _shape(node: FloatNode, shapes: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    channels, height, width = shapes[sources(node)[0]]
    match node:
        case FloatConv():
            kernel, pads = node.weight.shape[2:], node.pads
            channels = len(node.weight)
        case FloatMaxPool():
            kernel, pads = node.kernel, node.pads
        case FloatAveragePool():
            kernel, pads = node.kernel, NONE
        case FloatShortcut():
            kernel, pads, channels = (1, 1), NONE, node.channels
        case FloatConcat():
            return sum(shapes[name][0] for name in node.sources), height, width
        case _:
            return channels, height, width
    down, right = node.stride
    height = (height + pads[0] + pads[2] - kernel[0]) // down + 1
    return channels, height, (width + pads[1] + pads[3] - kernel[1]) // right + 1


STEM = (conv("stem", INPUT, (8, 3, 3, 3)), FloatActivation("relu", "stem", Relu(None)))
SILU = (STEM[0], FloatActivation("relu", "stem", Silu()))
HEAD = (FloatAveragePool("mean", "body", (8, 8), (1, 1)), conv("fc", "mean", (5, 8, 1, 1)))
GATE = (
    FloatAveragePool("pool", "relu", (8, 8), (8, 8)),
    conv("squeeze", "pool", (4, 8, 1, 1)),
    FloatActivation("r1", "squeeze", Relu(None)),
    conv("excite", "r1", (8, 4, 1, 1)),
)
TWO = (
    conv("c1", "relu", (8, 8, 3, 3)),
    FloatActivation("r1", "c1", Relu(None)),
    conv("c2", "r1", (8, 8, 3, 3)),
)

NETWORKS: dict[str, tuple[FloatNode, ...]] = {
    "plain": (*STEM, conv("last", "relu", (5, 8, 3, 3))),
    "one layer": (conv("only", INPUT, (5, 3, 3, 3)),),
    "residual": (
        *STEM,
        *TWO,
        FloatAdd("add", ("c2", "relu")),
        FloatActivation("body", "add", Relu(None)),
        *HEAD,
    ),
    "shortcut": (
        *STEM,
        conv("c1", "relu", (12, 8, 3, 3), stride=2),
        FloatShortcut("down", "relu", (2, 2), 12, 2),
        FloatAdd("add", ("down", "c1")),
        FloatActivation("r1", "add", Relu(None)),
        conv("last", "r1", (5, 12, 1, 1)),
    ),
    "two convolutions": (
        *STEM,
        conv("side", "relu", (12, 8, 1, 1), stride=2),
        conv("c1", "relu", (12, 8, 3, 3), stride=2),
        FloatAdd("add", ("side", "c1")),
        FloatActivation("r1", "add", Relu(None)),
        conv("last", "r1", (5, 12, 1, 1)),
    ),
    "linear between": (
        *STEM,
        conv("linear", "relu", (8, 8, 3, 3)),
        conv("last", "linear", (5, 8, 3, 3)),
    ),
    "sum of pools": (
        *STEM,
        FloatMaxPool("max", "relu", (2, 2), (2, 2), NONE),
        FloatAveragePool("avg", "relu", (2, 2), (2, 2)),
        FloatAdd("add", ("max", "avg")),
        conv("last", "add", (5, 8, 1, 1)),
    ),
    "twice": (*STEM, FloatAdd("double", ("relu", "relu")), conv("last", "double", (5, 8, 1, 1))),
    "ends in pool": (*STEM, FloatMaxPool("max", "relu", (2, 2), (2, 2), NONE)),
    "ends in relu": (*STEM,),
    "relu6": (
        conv("stem", INPUT, (8, 3, 3, 3)),
        FloatActivation("relu", "stem", Relu(1.0)),
        conv("last", "relu", (5, 8, 3, 3)),
    ),
    "pooled input": (
        FloatMaxPool("max", INPUT, (2, 2), (2, 2), NONE),
        FloatActivation("relu", "max", Relu(None)),
        conv("last", "relu", (5, 3, 1, 1)),
    ),
    "shortcut alone": (
        *STEM,
        FloatShortcut("down", "relu", (2, 2), 12, 3),
        conv("last", "down", (5, 12, 1, 1)),
    ),
    "padded pool": (
        *SILU,
        FloatMaxPool("max", "relu", (3, 3), (2, 2), (1, 1, 1, 1)),
        conv("last", "max", (5, 8, 1, 1)),
    ),
    "depthwise": (
        *SILU,
        conv("deep", "relu", (8, 1, 3, 3), groups=8),
        FloatActivation("r1", "deep", Silu()),
        conv("last", "r1", (5, 8, 1, 1)),
    ),
    "grouped": (
        *SILU,
        conv("group", "relu", (12, 4, 3, 3), groups=2),
        FloatActivation("r1", "group", Relu(None)),
        conv("last", "r1", (5, 12, 1, 1)),
    ),
    "concat": (
        *STEM,
        *TWO,
        FloatActivation("r2", "c2", Relu(None)),
        FloatConcat("cat", ("relu", "r1", "r2")),
        conv("inner", "cat", (8, 24, 1, 1)),
        FloatActivation("r3", "inner", Relu(None)),
        conv("last", "r3", (5, 8, 1, 1)),
    ),
    "concat of different zeros": (
        *SILU,
        conv("c1", "relu", (4, 8, 3, 3)),
        FloatActivation("r1", "c1", Tanh()),
        conv("c2", "relu", (4, 8, 3, 3)),
        FloatConcat("cat", ("r1", "c2", "relu")),
        conv("last", "cat", (5, 16, 3, 3)),
    ),
    "dense": (
        *STEM,
        conv("c1", "relu", (4, 8, 3, 3)),
        FloatConcat("one", ("relu", "c1")),
        FloatActivation("r1", "one", Relu(None)),
        conv("c2", "r1", (4, 12, 3, 3)),
        FloatConcat("two", ("one", "c2")),
        FloatActivation("r2", "two", Relu(None)),
        conv("last", "r2", (5, 16, 1, 1)),
    ),
    "squeeze and excite": (
        *SILU,
        *GATE,
        FloatActivation("gate", "excite", Sigmoid()),
        FloatMultiply("gated", "relu", "gate"),
        conv("inner", "gated", (8, 8, 3, 3)),
        FloatAdd("add", ("inner", "gated")),
        conv("last", "add", (5, 8, 1, 1)),
    ),
    "gate and function": (
        *STEM,
        *GATE,
        FloatActivation("gate", "excite", HardSigmoid(0.2, 0.5)),
        conv("c1", "relu", (8, 8, 3, 3)),
        FloatMultiply("gated", "c1", "gate"),
        FloatActivation("r2", "gated", HardSwish()),
        conv("last", "r2", (5, 8, 1, 1)),
    ),
}
OF_FUNCTIONS: dict[str, tuple[FloatNode, ...]] = {
    name: (
        conv("stem", INPUT, (8, 3, 3, 3)),
        FloatActivation("f1", "stem", function),
        conv("c1", "f1", (8, 8, 3, 3)),
        FloatActivation("f2", "c1", function),
        conv("last", "f2", (5, 8, 3, 3)),
    )
    for name, function in FUNCTIONS.items()
    if name != "relu6"
}
NETWORKS |= OF_FUNCTIONS
