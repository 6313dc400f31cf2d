"""ONNX to ``FloatGraph``."""
