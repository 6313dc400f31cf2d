"""Where channels lie in the words of a pixel, and which tensors are parts of a larger one.

A word holds ``cols`` channels. The channels of a tensor follow one another, but for a concat: there
each part starts at a word of its own, so that it is written in place and gaps may precede the next.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwquant.errors import UnsupportedModel
from hwquant.ir import (
    INPUT,
    ConcatLayer,
    EmbeddingLayer,
    IntArray,
    LayerNormLayer,
    MacLayer,
    MatMulLayer,
    MaxPoolLayer,
    QuantGraph,
    SoftmaxLayer,
)


@dataclass(frozen=True)
class Layout:
    """Runs of channels, each from the start of a word of ``cols`` channels on."""

    cols: int
    runs: tuple[int, ...]

    @property
    def words(self) -> int:
        """Words a pixel."""
        return sum(-(-run // self.cols) for run in self.runs)

    @cached_property
    def positions(self) -> IntArray:
        """Where each channel lies, ``int[C]``: word times ``cols``, plus place in the word."""
        starts = np.cumsum([0, *(-(-run // self.cols) * self.cols for run in self.runs)])
        runs = zip(self.runs, starts.tolist(), strict=False)
        return np.concatenate(
            [np.arange(start, start + run, dtype=np.int64) for run, start in runs]
        )

    @property
    def extent(self) -> int:
        """Places up to the last channel, gaps included."""
        return int(self.positions[-1]) + 1


def layouts(graph: QuantGraph, cols: int) -> dict[str, Layout]:
    """Lay out every tensor.

    A max pool and a depthwise layer work on words, so their outputs lie like their sources; a layer
    with a residual or a gate of as many channels writes them where those lie. The last layer's
    channels leave in their order.
    """
    found = {INPUT: Layout(cols, (graph.input.tensor.channels,))}
    for layer in graph.layers:
        plain = Layout(cols, (layer.output.channels,))
        match layer:
            case ConcatLayer():
                runs = [run for name in layer.sources for run in found[name].runs]
                found[layer.name] = Layout(cols, tuple(runs))
            case MaxPoolLayer():
                found[layer.name] = found[layer.source]
            case MacLayer(activation=None):
                found[layer.name] = plain
            case MacLayer():
                like = layer.source if layer.is_depthwise else layer.operand
                fits = like and graph.tensor(like).channels == layer.output.channels
                moved = like == layer.operand and layer.residual and layer.residual.channel_offset
                found[layer.name] = found[like] if like and fits and not moved else plain
            case EmbeddingLayer() | LayerNormLayer() | MatMulLayer() | SoftmaxLayer():
                found[layer.name] = plain
    return found


@dataclass(frozen=True)
class Part:
    """A tensor's place in the tensor ``whole`` that it is stored in: ``offset`` words in a pixel.

    A tensor that is part of no other is a whole itself.
    """

    whole: str
    offset: int


def parts(graph: QuantGraph, found: dict[str, Layout]) -> dict[str, Part]:
    """Return which tensor each tensor is a part of.

    Raises
    ------
    UnsupportedModel
        If a concat takes a tensor twice, or parts of several wholes of which none has all of it in
        one piece.
    """
    leaves: dict[str, tuple[str, ...]] = {}
    for layer in graph.layers:
        if isinstance(layer, ConcatLayer):
            flat = [leaf for name in layer.sources for leaf in leaves.get(name, (name,))]
            if len(set(flat)) < len(flat):
                raise UnsupportedModel(f"{layer.name}: a tensor twice in one concat; needs a copy")
            leaves[layer.name] = tuple(flat)
    result = {name: Part(name, 0) for name in found}
    owner: dict[str, str] = {}
    for name in sorted(leaves, key=lambda name: -len(leaves[name])):
        flat = leaves[name]
        wholes = {owner.get(leaf, name) for leaf in flat}
        whole = wholes.pop()
        if wholes or not _has_run(leaves[whole], flat):
            others = ", ".join(sorted({owner[leaf] for leaf in flat if leaf in owner}))
            raise UnsupportedModel(
                f"{name}: its parts lie in {others} in another order; a tensor can be stored in "
                "one concat only, and needs a copy for the other"
            )
        owner |= dict.fromkeys(flat, whole)
        before = leaves[whole][: leaves[whole].index(flat[0])]
        result[name] = Part(whole, sum(found[leaf].words for leaf in before))
        if whole == name:
            offset = 0
            for leaf in flat:
                result[leaf] = Part(whole, offset)
                offset += found[leaf].words
    return result


def _has_run(whole: tuple[str, ...], run: tuple[str, ...]) -> bool:
    """Whether ``run`` stands in ``whole`` in one piece."""
    return any(whole[at : at + len(run)] == run for at in range(len(whole) - len(run) + 1))
