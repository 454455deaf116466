"""Which architectures of transformers compile, each in a tiny random configuration.

    python scripts/bench/architectures.py --json out.json --markdown docs/architectures.md
    python scripts/bench/architectures.py --only llama mixtral --task text-generation
    python scripts/bench/architectures.py --quantize int8 --json out.json

Takes what transformers lists for a task, shrinks the default configuration of each, saves a model
of random weights, builds it for ``ort-cpu`` in fp32 and lets ``verify`` hold it against PyTorch: a
build that ends well is one that computes the same. Where weights are quantized it is one that runs,
and gives finite numbers: random weights lose more than a gate allows. Each has a process of its own
and a time limit.
Text alone is looked at: for embeddings, architectures that have a head for text as well; for
labels, those that fill masks, too, for decoders have the same head as for embeddings.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LAYERS, VOCABULARY = 3, 260
MOST_PARAMETERS = 60_000_000  # of a model whose sizes have names that are not known here
PAIR = "text2text-generation"
TASKS = ("text-generation", PAIR, "feature-extraction", "fill-mask", "text-classification")
# Attributes of configurations, of any architecture, and what they are set to where they exist.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "mamba_d_ssm"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("d_ff", "n_inner", "d_inner", "hidden_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    "context_length": 128,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "query_pre_attn_scalar": 8,
    "sliding_window": 8,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    "num_experts_per_tok": 2,
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_state"), 8),
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "state_size": 8,
    "time_step_rank": 4,
    "hidden_size_per_layer_input": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Each head of latent attention has keys of its own.
LATENT = {"num_key_value_heads": 4}
# What of an architecture's default is of large models alone.
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_d_head": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1], [["global"], 1]],
        "attention_layers": ["global", "local", "global"],
        "window_size": 8,
    },
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "mamba_d_head": 16,
    },
    "deberta-v2": {"pooler_hidden_size": 32},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},  # four and two of these are the width
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "lilt": {"hidden_size": 48},  # a sixth of it is embedded, and a quarter beside it
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 16},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 2,
        "moe_shared_expert_intermediate_size": 16,
    },
    "perceiver": {"num_latents": 8, "d_latents": 32},
    "xmod": {"default_language": "en_XX"},
}
GATES = ("perplexity", "cosine", "max_error", "argmax")
# What each attempt needs, imported once, before their processes are forked.
PRELOADED = "lepton_compile.api.building"
# One entry for each layer.
PER_LAYER = ("layer_types", "mlp_layer_types")

INTRODUCTION = """\
# Architectures

What transformers {transformers} lists for a task, each in a tiny random configuration, built for
`ort-cpu` in fp32 and compared with PyTorch by `verify`. *stamped*: each distinct layer is traced
once; *whole*: all layers are; *plain*: attention stays the model's own code, without our kernels,
but for that with an attention bias (T5) where weights are quantized.
*Not tried*: no tiny configuration could be made of its default. What
[models.md](models.md) names is tested with each change; the rest was tried
once, by `scripts/bench/architectures.py`, which wrote this page. With weights in int8 the same ones
build and run (`--quantize int8`). Vision models are [on a page of their own](images.md).
"""

UNKNOWN = object()
Found = dict[str, Any]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--only", nargs="+", help="names of architectures, as of model_type")
    parser.add_argument("--quantize", default="none", help="as in a recipe; none is fp32")
    parser.add_argument("--limit", type=int, default=180, help="seconds for each")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--markdown", type=Path, help="where a table for people goes")
    return parser.parse_args(given)


def listed(task: str) -> dict[str, str]:
    """Architecture -> class, of those that transformers has for a task."""
    from transformers.models.auto import modeling_auto as auto

    masked = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    classified = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    pairs = auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.items()
    heads: dict[str, dict[str, str]] = {
        "text-generation": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        PAIR: {n: c for n, c in pairs if _reads_and_writes(n)},
        "fill-mask": masked,
        "text-classification": {n: c for n, c in classified.items() if n in masked},
    }
    if task in heads:
        return dict(heads[task])
    reads = auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES  # T5 without what writes
    return {
        name: reads[name] if reads.get(name, "").endswith("EncoderModel") else _first(each)
        for name, each in auto.MODEL_MAPPING_NAMES.items()
        if name in masked or name in classified
    }


def _reads_and_writes(name: str) -> bool:
    """Whether it is an encoder and a decoder of texts, and of nothing else."""
    import transformers

    try:
        config = transformers.CONFIG_MAPPING[name]()
    except Exception:  # of models that are put together of two
        return False
    heard = ("audio_config", "speech_encoder_layers")
    return bool(config.is_encoder_decoder) and not any(hasattr(config, each) for each in heard)


def _first(classes: str | tuple[str, ...]) -> str:
    return classes if isinstance(classes, str) else classes[0]


def shrunk(config: Any) -> Any:
    """A configuration with the ``SIZES`` that it knows, and so the configurations inside it."""
    given = SIZES | ({} if _known(config, "kv_lora_rank") is UNKNOWN else LATENT)
    for name in PER_LAYER:
        kinds = _known(config, name)
        if isinstance(kinds, list) and kinds:
            given[name] = (list(dict.fromkeys(kinds)) * LAYERS)[:LAYERS]
    given |= SPECIAL.get(config.model_type, {})
    for name, value in given.items():
        if _known(config, name) is not UNKNOWN:
            # Some follow from others, and some are checked as they are set.
            with contextlib.suppress(Exception):
                setattr(config, name, value)
    for inner in list(vars(config).values()):
        if hasattr(inner, "to_json_string"):
            shrunk(inner)
    return config


def _known(config: Any, name: str) -> Any:
    """An attribute; ``UNKNOWN`` where there is none, or one for each layer."""
    try:
        return getattr(config, name, UNKNOWN)
    except Exception:  # transformers' own, which is no AttributeError
        return UNKNOWN


def saved(name: str, kind: str, task: str, folder: Path) -> None:
    """A random model that computes, with a tokenizer of bytes."""
    import torch
    import transformers

    from tests.small import byte_tokenizer

    config = shrunk(transformers.CONFIG_MAPPING[name]())
    if task == "text-generation" and getattr(config, "is_decoder", None) is False:
        config.is_decoder = True  # BERT and its like look both ways without
    if task == PAIR:
        config.decoder_start_token_id = 1  # T5 and its like have none of their own
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters: its sizes have names that are not known here")
    with torch.no_grad():
        for parameter in model.parameters():  # routers begin with zeros, and experts tie
            if parameter.is_floating_point() and parameter.numel() > 1 and not parameter.std():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        ids = torch.randint(4, VOCABULARY - 10, (2, 12))
        model(input_ids=ids, **({"decoder_input_ids": ids} if task == PAIR else {}))
    model.save_pretrained(folder)
    byte_tokenizer(folder)
    transformers.AutoConfig.from_pretrained(folder)  # some are shrunk beyond what they read again


def attempt(name: str, kind: str, task: str, quantize: str = "none") -> Found:
    """What becomes of one architecture."""
    import lepton_compile as lc

    with tempfile.TemporaryDirectory() as place:
        source, output = Path(place, "model"), Path(place, "artifact")
        try:
            saved(name, kind, task, source)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return {"result": "untried", "reason": reason.splitlines()[0]}
        shapes = {"batch": "1..4", "sequence": "1..96"}
        recipe: dict[str, Any] = {"model": str(source), "task": task, "shapes": shapes}
        recipe["quantize"] = quantize
        if quantize != "none":
            recipe |= {"check": False, "gates": dict.fromkeys(GATES)}
        try:
            lc.build(recipe, output=output)
        except lc.LeptonError as error:
            reason = f"{error.message}: {error.found}" if error.found else error.message
            return {"result": "refused", "reason": reason}
        except Exception as error:
            return {"result": "failed", "reason": f"{type(error).__name__}: {error}"}
        report = json.loads((output / "report.json").read_text(encoding="utf-8"))
        return {"result": "compiled", "how": report["capture"]["how"]}


def child(name: str, kind: str, task: str, quantize: str, answer: Connection) -> None:
    """An attempt in a process of its own, its screen kept to itself."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    answer.send(attempt(name, kind, task, quantize))


def results(
    task: str, only: Sequence[str] | None, limit: int, quantize: str = "none"
) -> Iterator[tuple[str, Found]]:
    """Architecture and what became of it, one after the other.

    Their processes are forked from one that has imported what a build needs and done nothing: a
    fork of ours would wait forever for torch's threads, once there are any, which it has not got.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    for name, kind in listed(task).items():
        if only and name not in only:
            continue
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(name, kind, task, quantize, theirs))
        process.start()
        theirs.close()
        found: Found = {"result": "failed", "reason": f"no answer in {limit} seconds"}
        try:
            found = ours.recv() if ours.poll(limit) else found
        except EOFError:
            process.join()
            found["reason"] = f"its process ended with {process.exitcode}"
        process.kill()
        process.join()
        yield name, {"class": kind, **found}


def markdown(tasks: dict[str, dict[str, Found]], versions: dict[str, str]) -> str:
    """A table for each task, what compiles first."""
    lines = [INTRODUCTION.format(**versions).rstrip(), ""]
    for task, found in tasks.items():
        count = Counter(each["result"] for each in found.values())
        tried = len(found) - count["untried"]
        lines += [f"## {task}", "", f"{count['compiled']} of {tried} that were tried compile.", ""]
        lines += ["| | |", "|---|---|"]
        for how in ("stamped", "whole", "plain"):
            names = [f"`{name}`" for name, each in found.items() if each.get("how") == how]
            lines += [f"| {how} | {', '.join(names)} |"] if names else []
        untried = [f"`{name}`" for name, each in found.items() if each["result"] == "untried"]
        lines += [f"| not tried | {', '.join(untried)} |"] if untried else []
        refused = {n: e for n, e in found.items() if e["result"] in ("refused", "failed")}
        if refused:
            lines += ["", "| does not compile | |", "|---|---|"]
            lines += [f"| `{name}` | {told(each)} |" for name, each in refused.items()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def told(found: Found) -> str:
    """A reason in one cell of a table."""
    words = " ".join(str(found["reason"]).replace("|", "/").split())
    words = words.removeprefix(f"{found['class']} cannot be captured as a graph: ")
    return words if len(words) <= 300 else words[:297] + "..."


def main() -> int:
    given = arguments()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the tests' tokenizer
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    versions = {
        name: importlib.metadata.version(name) for name in ("transformers", "torch", "onnxruntime")
    }
    tasks: dict[str, dict[str, Found]] = {}
    for task in given.task:
        tasks[task] = {}
        for name, found in results(task, given.only, given.limit, given.quantize):
            tasks[task][name] = found
            print(task, name, found["result"], found.get("how") or found.get("reason"), flush=True)
    told_of = {"python": platform.python_version(), "versions": versions}
    data = {**told_of, "quantize": given.quantize, "tasks": tasks}
    if given.json:
        given.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(markdown(tasks, versions), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
