"""What a model was released to be held to while it writes, and what of that a loader leaves out.

A loader is held to what a generation config forbids, and to how an answer ends. How likely tokens
are drawn, how long answers are and how many are looked for together is asked for with each call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lepton_compile.export.encoder_decoder import PAIRS, READS, SPEECH
from lepton_compile.export.generation_said import Said
from lepton_compile.export.image_text import IMAGE_TEXT
from lepton_compile.export.source import Source

__all__ = ["left_out", "never", "rules"]

COUNTS = {"apart": "no_repeat_ngram_size", "least": "min_length"}
# What changes answers, with the value that changes none; null is one of all.
CALLS = {"repetition_penalty": 1.0, "max_new_tokens": None, "max_length": 20, "stop_strings": None}
BEAMS = {"num_beams": 1, "length_penalty": 1.0}
DRAWS = ("temperature", "top_k", "top_p", "min_p")
UNKNOWN = {
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "encoder_repetition_penalty": 1.0,
    "guidance_scale": 1.0,
    "watermarking_config": None,
    "force_words_ids": None,
    "constraints": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "token_healing": False,
    "max_time": None,
}
UNKNOWN_DRAWS = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "top_h": None}
HEARD = ("temperature",)  # What transcribe() takes.


def never(said: Said) -> list[int]:
    """Tokens that are never written. A bad word that ends texts may: so transformers has it."""
    bad = {word[0] for word in _bad_words(said) if len(word) == 1}
    return sorted({*said.rule_ids("suppress_tokens"), *(bad - {*said.ids("eos_token_id")})})


def rules(said: Said, task: str) -> dict[str, dict[str, Any]]:
    """``rules`` of what a model of ``task`` writes, by the names of FORMAT.md, if there are any."""
    found: dict[str, Any] = {name: said.count(key) for name, key in COUNTS.items()}
    if new := said.count("min_new_tokens"):
        # In its place, as transformers has it; what an answer begins with is new but for one token.
        found |= {"least": new + 1} if task == READS else {"least": 0, "least_new": new}
    found["words"] = [word for word in _bad_words(said) if len(word) > 1]
    found["last"] = said.rule_ids("forced_eos_token_id")
    if task != SPEECH:
        found["source_apart"] = said.count("encoder_no_repeat_ngram_size")
    if task == READS:
        found["early"] = said.rule("early_stopping") is True
        found["renormalize"] = said.rule("renormalize_logits") is True
    kept = {name: value for name, value in found.items() if value}
    return {"rules": kept} if kept else {}


def left_out(source: Source, task: str) -> list[str]:
    """Sentences on what of a generation config changes the answers of transformers, and not a
    loader's."""
    if source.kind == "onnx" or task not in ("text-generation", IMAGE_TEXT, *PAIRS):
        return []
    said = Said(source)
    unknown, asked = dict(_unknown(said, task)), dict(_asked(said, task))
    told = []
    if idle := said.idle_ends():
        told.append(
            f"eos_token_id {idle} of config.json ends no answer: generation_config.json, which "
            "counts as a whole, has none"
        )
    if asked:
        told.append(f"the generation config has {_text(asked)}: each call has to ask for it")
    if unknown:
        told.append(f"the generation config has {_text(unknown)}: left out, no loader does it")
    return told


def _asked(said: Said, task: str) -> Iterator[tuple[str, Any]]:
    if task != SPEECH:
        yield from _changing(said, CALLS)
    if task == READS and _changes(said, "num_beams", 1):
        yield from _changing(said, BEAMS)
    if said.rule("do_sample") is True:
        drawn = [name for name in DRAWS if task != SPEECH or name in HEARD]
        yield from _changing(said, {"do_sample": False, **dict.fromkeys(drawn)})


def _unknown(said: Said, task: str) -> Iterator[tuple[str, Any]]:
    yield from _changing(said, UNKNOWN)
    if task == SPEECH:
        yield from _changing(said, {"repetition_penalty": 1.0, "stop_strings": None})
    if said.rule("do_sample") is True:
        yield from _changing(said, UNKNOWN_DRAWS)
    if task == READS:
        if said.rule("early_stopping") == "never":
            yield "early_stopping", "never"
        return
    if _changes(said, "num_beams", 1):
        yield from _changing(said, BEAMS)
    if task != SPEECH:
        yield from _changing(said, {"forced_bos_token_id": None})


def _changing(said: Said, neutral: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in neutral.items():
        if _changes(said, name, value):
            yield name, said.rule(name)


def _changes(said: Said, name: str, neutral: Any) -> bool:
    return said.rule(name) not in (None, neutral, [], {})


def _text(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r:.40}" for name, value in found.items())


def _bad_words(said: Said) -> Iterator[list[int]]:
    words = said.rule("bad_words_ids")
    for word in words if isinstance(words, list) else ():
        ids = isinstance(word, list) and all(type(each) is int for each in word)
        if ids and said.known(word) == word:
            yield word
