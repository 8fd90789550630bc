"""From a training run to verified ONNX files."""
