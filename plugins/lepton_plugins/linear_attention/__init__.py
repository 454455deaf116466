"""Linear attention with a state for each head, for onnxruntime on the CPU."""
