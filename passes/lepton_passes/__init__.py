"""Graph passes of lepton-compile: clean-up, fusion, quantization and lowering."""
