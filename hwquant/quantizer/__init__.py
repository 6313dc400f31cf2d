"""``FloatGraph`` to ``QuantGraph``, without data."""
