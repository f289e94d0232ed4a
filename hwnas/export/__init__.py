"""ONNX export, parity with torch, and verification on the device."""
