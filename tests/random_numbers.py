"""What all layers of a random network share: bits, arithmetic, and what its codes stand for."""

import numpy as np

from hwquant.ir import Arithmetic, IntArray, LevelTables, ProductTable, Tensor


class Numbers:
    """The tables of a network, and the codes that its tensors may hold."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.weight_bits = int(rng.integers(2, 6))
        self.act_bits = int(rng.integers(2, 5))
        self.part_shift = int(rng.integers(1, self.act_bits + 2))
        self.arithmetic = self._arithmetic()
        self.skip_levels = np.append(0, np.cumsum(rng.integers(0, 12, self.act_top)))
        self.detail_tables = self._detail_tables()
        self.skip_shift = int(rng.integers(0, 13))

    @property
    def act_top(self) -> int:
        return (1 << self.act_bits) - 1

    @property
    def weight_top(self) -> int:
        return (1 << self.weight_bits - 1) - 1

    def _arithmetic(self) -> Arithmetic:
        rng, shape = self.rng, (self.weight_top, self.act_top)
        kind = rng.choice(["table", "power", "uniform", "levels"])
        if kind == "levels":
            steps = rng.integers(0, 9, shape[0]), rng.integers(0, 9, shape[1])
            return LevelTables(*(np.append(0, np.cumsum(s)) for s in steps))
        products = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
        exact = np.outer(np.arange(1, shape[0] + 1), np.arange(1, shape[1] + 1))
        if kind == "power":
            exact = np.rint((exact / exact[-1, -1]) ** 1.4 * 127).astype(np.int64)
        elif kind == "table":
            exact = rng.integers(0, 3, shape).cumsum(axis=0).cumsum(axis=1)
        products[1:, 1:] = exact
        return ProductTable(products)

    def _detail_tables(self) -> IntArray:
        """Draw levels that rise from 0, and steps about them, most of them negative at times."""
        levels = np.append(0, np.cumsum(self.rng.integers(0, 40, self.act_top)))
        steps = self.rng.integers(-80, 60, self.act_top + 1)
        steps[-1] = max(0, steps[-1])  # or there might be no valid code at all
        return np.stack([levels, np.sort(steps)])

    def levels(self, tensor: Tensor, codes: IntArray) -> IntArray:
        """Return what codes of a residual or gate stand for."""
        digits = [codes >> self.act_bits * j & self.act_top for j in range(tensor.parts)]
        if tensor.is_detailed:
            return self.detail_tables[0][digits[1]] + self.detail_tables[1][digits[0]]
        weighed = [self.skip_levels[d] << self.part_shift * j for j, d in enumerate(digits)]
        return np.sum(weighed, axis=0)

    def held(self, tensor: Tensor) -> IntArray:
        """Return the codes that a tensor may hold."""
        codes = np.arange(1 << self.act_bits * tensor.parts)
        return codes[self.levels(tensor, codes) >= 0]

    def pad_code(self, parts: int, channels: int) -> IntArray:
        """Draw codes of padding: no operand reads them, so they may be any."""
        return self.rng.integers(0, 1 << self.act_bits * parts, channels)
