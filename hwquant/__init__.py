"""Float ONNX network in, Verilog proved to compute it at 4 bits out."""

__version__ = "0.1.0"
