"""``genai_config.json`` from a manifest, and what cannot be put into one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.errors import ArtifactError
from lepton_compile.serving import genai_left_out, genai_rules
from lepton_compile.serving.genai_config import genai_config
from lepton_compile.serving.genai_rules import search_rules
from tests.serving.artifacts import changed, engine_of

LAYER = {"heads": 2, "head_dim": 16, "window": None}


def config_of(engine: Any, **settings: Any) -> dict[str, Any]:
    return genai_config(engine, {"hidden_size": 32, "num_attention_heads": 4}, settings)


def test_the_decoder_by_its_own_names(decoder: Artifact) -> None:
    config = config_of(engine_of(decoder))
    model, search = config["model"], config["search"]
    assert model["decoder"]["inputs"] == {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    assert model["decoder"]["outputs"]["present_value_names"] == "present.%d.value"
    assert (model["eos_token_id"], model["bos_token_id"], model["pad_token_id"]) == ([1], 2, 0)
    assert model["context_length"] == search["max_length"] == 96
    assert search["past_present_share_buffer"] is True
    assert search["do_sample"] is False


def test_a_cache_that_is_not_shared_is_not_shared_there(decoder: Artifact) -> None:
    cache = {**(decoder.manifest.cache or {}), "shared": False}
    config = config_of(changed(engine_of(decoder), cache=cache))
    assert config["search"]["past_present_share_buffer"] is False


def test_sampling_is_the_models_and_greed_is_unbent(decoder: Artifact) -> None:
    search = config_of(engine_of(decoder), top_k=64, top_p=0.95, repetition_penalty=1.3)["search"]
    assert (search["top_k"], search["top_p"], search["temperature"]) == (64, 0.95, 1.0)
    assert search["repetition_penalty"] == 1.0


def test_how_long_a_text_is_at_least_and_what_it_does_not_repeat(decoder: Artifact) -> None:
    told = decoder.manifest.generation or {}
    for rules, least, apart in (({}, 0, 0), ({"apart": 2}, 0, 2), ({"least": 12}, 12, 0)):
        engine = changed(engine_of(decoder), generation={**told, "rules": rules})
        search = config_of(engine)["search"]
        assert (search["min_length"], search["no_repeat_ngram_size"]) == (least, apart)
    assert search_rules({"rules": {"apart": 2}}, "ort-cuda") == {"min_length": 0}, "refused there"


def test_what_it_cannot_be_told_is_named(decoder: Artifact, monkeypatch: Any) -> None:
    engine = {"target": "ort-cuda"}
    rules = {"apart": 3, "least": 4, "least_new": 5, "words": [[6, 7]], "last": [8]}
    generation = {"eos": [1], "never": [9], "first": [10], "rules": rules}
    made = replace(decoder.manifest, generation=generation)
    monkeypatch.setattr(genai_rules, "read_manifest", lambda _: made)
    (said,) = genai_left_out(decoder.path)
    assert said == (
        "the generation config has suppress_tokens and bad_words_ids [9], begin_suppress_tokens "
        "[10], min_new_tokens 5, bad_words_ids [[6, 7]], forced_eos_token_id [8]: left out, "
        "onnxruntime-genai cannot be told"
    )
    made = replace(made, engines=(engine,))
    assert "no_repeat_ngram_size 3, min_new_tokens" in genai_left_out(decoder.path)[0]
    made = replace(decoder.manifest, generation={"eos": [1], "rules": {"least": 4, "apart": 3}})
    assert genai_left_out(decoder.path) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", 2.5),
        ("top_k", True),
        ("top_p", [1]),
    ],
)
def test_what_nothing_can_be_sampled_with(name: str, value: Any, decoder: Artifact) -> None:
    with pytest.raises(ArtifactError, match=name) as caught:
        config_of(engine_of(decoder), **{name: value})
    assert caught.value.where == "generation_config.json"
    assert caught.value.found == repr(value)


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [("gemma3_text", "gemma3_text"), ("phi3", "decoder"), ("olmo2", "decoder"), (None, "decoder")],
)
def test_a_kind_that_would_change_the_graphs_meaning_is_the_plain_one(
    decoder: Artifact, model_type: str | None, expected: str
) -> None:
    engine = changed(engine_of(decoder), model={"model_type": model_type})
    assert config_of(engine)["model"]["type"] == expected


def test_positions_are_fed_where_the_graph_takes_them(decoder: Artifact) -> None:
    value = {"name": "position_ids", "dtype": "int64", "shape": ["batch", "sequence"]}
    engine = changed(engine_of(decoder), inputs=(*decoder.manifest.inputs, value))
    assert config_of(engine)["model"]["decoder"]["inputs"]["position_ids"] == "position_ids"


def test_an_input_nobody_feeds_is_refused(decoder: Artifact) -> None:
    value = {"name": "pixel_values", "dtype": "float32", "shape": ["batch", 3]}
    engine = changed(engine_of(decoder), inputs=(*decoder.manifest.inputs, value))
    with pytest.raises(ArtifactError) as caught:
        config_of(engine)
    assert caught.value.found == "pixel_values"


def test_layers_of_different_shapes_are_refused(decoder: Artifact) -> None:
    cache = {**(decoder.manifest.cache or {}), "layers": [LAYER, {**LAYER, "head_dim": 32}]}
    with pytest.raises(ArtifactError) as caught:
        config_of(changed(engine_of(decoder), cache=cache))
    assert caught.value.found == "2 heads of 16, 2 heads of 32"


CONV, RECURRENT = [8, 3], [2, 8, 8]


def states(**numbers: dict[int, list[int]]) -> list[dict[str, Any]]:
    """Of each kind those of some numbers, with their shapes."""
    return [
        {"past": f"past_{kind}.{number}", "present": f"present_{kind}.{number}", "shape": shape}
        for kind, of_kind in numbers.items()
        for number, shape in of_kind.items()
    ]


@pytest.mark.parametrize(
    ("kept", "at", "message", "found"),
    [
        # As of a model that was traced in one, which counts each kind for itself.
        ({"conv": {0: CONV}}, [0, 1], "either a convolution or a cache", "[0], caches [0, 1]"),
        ({"conv": {0: CONV}}, [2, 3], "either a convolution or a cache", "[0], caches [2, 3]"),
        ({"recurrent": {0: RECURRENT}}, [1, 2], "with a convolution each", "states [0]"),
        (
            {"conv": {0: CONV, 1: CONV}, "recurrent": {1: RECURRENT}},
            [2, 3],
            "with a convolution each",
            "convolutions [0, 1], recurrent states [1]",
        ),
        ({"conv": {0: CONV, 1: [9, 3]}}, [2, 3], "one shape for all states", "(8, 3), (9, 3)"),
    ],
)
def test_states_that_it_cannot_hold_are_refused(
    decoder: Artifact, kept: dict[str, Any], at: list[int], message: str, found: str
) -> None:
    cache = decoder.manifest.cache or {}
    layers = [{**layer, "layer": number} for layer, number in zip(cache["layers"], at, strict=True)]
    engine = changed(
        engine_of(decoder), cache={**cache, "layers": layers, "states": states(**kept)}
    )
    with pytest.raises(ArtifactError, match=message) as caught:
        config_of(engine)
    assert found in str(caught.value.found)
    assert "export triton" in str(caught.value.hint)


def test_without_an_end_the_padding_is_named(decoder: Artifact) -> None:
    generation = {"eos": [], "bos": None, "pad": None, "vocabulary": 64}
    model = config_of(changed(engine_of(decoder), generation=generation))["model"]
    assert (model["eos_token_id"], model["bos_token_id"], model["pad_token_id"]) == (0, 0, 0)
