"""Golden: the network of integers, computed with numpy exactly as ``docs/semantics.md`` says."""

from hwquant.golden.network import simulate, trace

__all__ = ["simulate", "trace"]
