"""Linear layers and embedding tables with packed weights, for onnxruntime on the CPU."""
