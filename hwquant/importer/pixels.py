"""Some of an image's pixels and channels: crops, every n-th row or column, pixels as channels.

A choice is a convolution whose weights are ones and zeros. It goes where it can: into the strides
and pads of the convolution before, or into the kernel of the one behind, as Focus and space to
depth do, which are several choices side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hwquant.float_graph import FloatConv, FloatShortcut
from hwquant.importer.graph import (
    NO_PADS,
    Choice,
    Conversion,
    OnnxNode,
    Shape,
    View,
    axes_of,
    image_axes,
)
from hwquant.ir import INPUT, IntArray, Pads, Pair


def choose(
    state: Conversion,
    node: OnnxNode,
    view: View,
    kept: Mapping[str, Sequence[int]],
    axes: tuple[str, ...],
) -> None:
    """Emit the channels, rows and columns that ``kept`` has of C, H and W, in steps above 0."""
    before = state.shapes[view.source]
    channels, rows, columns = (kept.get(c, range(n)) for c, n in zip("CHW", before, strict=True))
    shape = (len(channels), len(rows), len(columns))
    axes = axes_of(axes, shape)
    start, step = (rows[0], columns[0]), (_step(rows), _step(columns))
    if "C" not in kept and _starts_later(state, view, start, step, shape):
        state.show(node, view, axes)
        return
    chosen = _choice(state, view.source) or _all_of(view.source, before, (1, 1))
    taken = np.array(channels, np.int64)
    moved = Choice(
        source=chosen.source,
        channels=chosen.channels[taken],
        offsets=chosen.offsets[taken] + np.multiply(start, chosen.stride),
        stride=(chosen.stride[0] * step[0], chosen.stride[1] * step[1]),
    )
    _emit(state, node, moved, shape, axes)
    if chosen.source != view.source:
        state.taken_apart.add(view.source)


def space_to_depth(state: Conversion, node: OnnxNode) -> None:
    """Convert SpaceToDepth."""
    view, (channels, height, width) = state.image(node)
    size = node.integer("blocksize", 1)
    down, right, channel = np.indices((size, size, channels)).reshape(3, -1)
    offsets = np.stack([down, right], axis=1)
    shape = (len(channel), height // size, width // size)
    choice = Choice(view.source, channel, offsets, (size, size))
    _emit(state, node, choice, shape, image_axes(shape))


def side_by_side(
    state: Conversion, node: OnnxNode, parts: Sequence[View], shape: Shape, axes: tuple[str, ...]
) -> bool:
    """Emit a Concat of choices of one tensor as one choice; tell whether they are such."""
    found = [_choice(state, view.source) for view in parts]
    choices = [choice for choice in found if choice is not None]
    same = {(choice.source, choice.stride) for choice in choices}
    is_one = len(same) == 1 and len(choices) == len(parts)
    if not is_one or not any(view.source in state.choices for view in parts):
        return False
    merged = replace(
        choices[0],
        channels=np.concatenate([choice.channels for choice in choices]),
        offsets=np.concatenate([choice.offsets for choice in choices]),
    )
    _emit(state, node, merged, shape, axes)
    state.taken_apart.update(view.source for view in parts)
    return True


def read_through(state: Conversion, node: OnnxNode, conv: FloatConv, size: Pair) -> FloatConv:
    """Let a convolution of a choice, with an output of ``size``, read what is chosen from.

    It stays as it is where the rows or columns beside the chosen ones are no zeros, where its
    groups would read others, and where its kernel would grow by more than strides, but at the
    input: a copy of pixels would lose precision.
    """
    choice = state.choices.get(conv.source)
    if choice is None:
        return conv
    before, chosen = state.shapes[choice.source], state.shapes[conv.source]
    kernel, reach, pads = conv.weight.shape[2:], list[int](), list[tuple[int, int]]()
    is_larger = False
    for axis in (0, 1):
        step, offsets = choice.stride[axis], choice.offsets[:, axis]
        first, last = conv.pads[axis], conv.pads[axis + 2]
        extent, stride = before[axis + 1], conv.stride[axis] * step
        if (first and offsets.max() >= step) or (
            last and chosen[axis + 1] * step + offsets.min() < extent
        ):
            return conv
        least = (kernel[axis] - 1) * step + int(offsets.max()) + 1
        after = max((size[axis] - 1) * stride + least - extent - first * step, 0)
        pads.append((first * step, after))
        reach.append(max(least, extent + sum(pads[axis]) - size[axis] * stride + 1))
        is_larger |= reach[axis] > kernel[axis] * step
    if is_larger and choice.source != INPUT:
        return conv
    rows, columns = choice.stride
    if conv.groups == 1:
        weight = np.zeros((len(conv.weight), before[0], *reach))
        for index, (channel, (down, right)) in enumerate(
            zip(choice.channels, choice.offsets, strict=True)
        ):
            weight[:, channel, down::rows, right::columns][:, : kernel[0], : kernel[1]] += (
                conv.weight[:, index]
            )
    elif choice.is_crop(before[0]):
        weight = np.zeros((*conv.weight.shape[:2], *reach))
        down, right = choice.offsets[0]
        weight[:, :, down::rows, right::columns][:, :, : kernel[0], : kernel[1]] = conv.weight
    else:
        return conv
    if is_larger:
        state.notes.append(
            f"{node.label}: the crop before it became a kernel of {reach[0]} x {reach[1]}, whose "
            "zeros take cycles like other weights"
        )
    state.taken_apart.add(conv.source)
    (top, bottom), (left, right) = pads
    return replace(
        conv,
        source=choice.source,
        weight=weight,
        stride=(conv.stride[0] * rows, conv.stride[1] * columns),
        pads=(top, left, bottom, right),
    )


def costs(state: Conversion) -> list[str]:
    """Tell of the choices that have stayed convolutions of their own."""
    kernels = {
        name: node.weight.shape[2:]
        for name, node in state.nodes.items()
        if name in state.choices and isinstance(node, FloatConv)
    }
    return [
        f"{name}: pixels are chosen by a layer with a kernel of {height} x {width}, whose zeros "
        "take cycles like other weights"
        for name, (height, width) in kernels.items()
        if height * width > 1
    ]


def _step(places: Sequence[int]) -> int:
    return places[1] - places[0] if len(places) > 1 else 1


def _starts_later(state: Conversion, view: View, start: Pair, step: Pair, shape: Shape) -> bool:
    """Let the convolution before compute no more than is chosen; tell whether it can."""
    layer = state.nodes.get(view.source)
    if not isinstance(layer, FloatConv) or view.shared or layer.name in state.choices:
        return False
    pads, stride = list[tuple[int, int]](), list[int]()
    for axis in (0, 1):
        extent, kernel = state.shapes[layer.source][axis + 1], layer.weight.shape[axis + 2]
        stride.append(layer.stride[axis] * step[axis])
        first = layer.pads[axis] - start[axis] * layer.stride[axis]
        last = max((shape[axis + 1] - 1) * stride[axis] + kernel - extent - first, 0)
        pads.append((first, last))
        if first < 0 or (extent + first + last - kernel) // stride[axis] + 1 != shape[axis + 1]:
            return False
    (top, bottom), (left, right) = pads
    moved: Pads = (top, left, bottom, right)
    state.nodes[layer.name] = replace(layer, stride=(stride[0], stride[1]), pads=moved)
    state.shapes[layer.name] = shape
    return True


def _choice(state: Conversion, name: str) -> Choice | None:
    """Return what a node chooses, if it does nothing else."""
    node = state.nodes.get(name)
    if isinstance(node, FloatShortcut) and node.channels == state.shapes[node.source][0]:
        return _all_of(node.source, state.shapes[node.source], node.stride)
    return state.choices.get(name)


def _all_of(source: str, shape: Shape, stride: Pair) -> Choice:
    channels: IntArray = np.arange(shape[0], dtype=np.int64)
    return Choice(source, channels, np.zeros((len(channels), 2), np.int64), stride)


def _emit(
    state: Conversion, node: OnnxNode, choice: Choice, shape: Shape, axes: tuple[str, ...]
) -> None:
    """Add a convolution of as small a kernel as gives the output its shape."""
    channels, *extents = state.shapes[choice.source]
    down, right = (
        max(int(offsets.max()) + 1, extent - count * step + 1)
        for offsets, extent, count, step in zip(
            choice.offsets.T, extents, shape[1:], choice.stride, strict=True
        )
    )
    is_depthwise = np.array_equal(choice.channels, np.arange(channels))
    weight = np.zeros((shape[0], 1 if is_depthwise else channels, down, right))
    read = 0 if is_depthwise else choice.channels
    weight[np.arange(shape[0]), read, choice.offsets[:, 0], choice.offsets[:, 1]] = 1
    groups, bias = channels if is_depthwise else 1, np.zeros(shape[0])
    made = FloatConv(node.name, choice.source, weight, bias, choice.stride, NO_PADS, None, groups)
    state.choices[node.name] = choice
    state.emit(made, node, shape, axes)
