"""ONNX export, parity with torch, quantisation, and timing on the device."""
