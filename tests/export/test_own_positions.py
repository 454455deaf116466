"""Decoders that know their positions by themselves: from how many tokens came before (BART and its
kin), or from behind the position of padding (RoBERTa and its kin)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lepton_compile.errors import ExportError

from .harness import FP32, compiled, empty_cache, padded, relative_error, run, save
from .zoo import _ROBERTA, LENGTH, VOCABULARY

PREFILL, WHOLE = 4, 9

_READER = {"encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
_WRITER = {
    **_READER,
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_GENERATES = {**_ROBERTA, "num_hidden_layers": 2, "is_decoder": True}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "BartConfig": _WRITER,
    "BigBirdPegasusConfig": _WRITER,
    "BlenderbotConfig": _WRITER,
    "MBartConfig": _WRITER,
    "MarianConfig": {**_WRITER, "decoder_vocab_size": VOCABULARY},
    "PegasusConfig": _WRITER,
    "PLBartConfig": _WRITER,
    "CamembertConfig": _GENERATES,
    "Data2VecTextConfig": _GENERATES,
    "RobertaConfig": _GENERATES,
    "RobertaPreLayerNormConfig": _GENERATES,
    "XLMRobertaConfig": _GENERATES,
    "XLMRobertaXLConfig": _GENERATES,
}


def _configuration(name: str) -> Any:
    return getattr(transformers, name)(**CONFIGURATIONS[name])


@pytest.mark.parametrize("name", list(CONFIGURATIONS))
def test_all_at_once_and_token_by_token(name: str, tmp_path: Path) -> None:
    """As the model's own code says when it is told no positions; one row begins with padding."""
    model = save(lambda: _configuration(name), "text-generation", tmp_path)
    exported, session = compiled(tmp_path, "text-generation")
    assert (exported.how, len(exported.caches)) == ("stamped", 2)
    ids, mask = padded(2, WHOLE, "left")
    ids[mask == 0] = model.config.pad_token_id
    with torch.no_grad():
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        expected = model(**given, use_cache=False).logits.numpy()
    past, start = empty_cache(session, 2), 0
    for stop in (PREFILL, *range(PREFILL + 1, WHOLE + 1)):
        feeds = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], **past}
        found = run(session, feeds)
        real = mask[:, start:stop].astype(bool)
        assert relative_error(found["logits"][real], expected[:, start:stop][real]) <= FP32
        past = {
            k.replace("present", "past_key_values"): v for k, v in found.items() if k != "logits"
        }
        start = stop


@pytest.mark.parametrize("name", ["RobertaConfig", "Data2VecTextConfig"])
def test_positions_of_padding_are_none_of_the_limit(name: str, tmp_path: Path) -> None:
    save(lambda: _configuration(name), "text-generation", tmp_path)
    exported, session = compiled(tmp_path, "text-generation")
    assert exported.length == CONFIGURATIONS[name]["max_position_embeddings"] - 2
    ids, mask = padded(1, exported.length, "none")
    run(session, {"input_ids": ids, "attention_mask": mask, **empty_cache(session, 1)})


def test_positions_that_begin_elsewhere_are_no_input(tmp_path: Path) -> None:
    save(lambda: _configuration("RobertaConfig"), "text-generation", tmp_path)
    with pytest.raises(ExportError, match="from behind that of padding") as caught:
        compiled(tmp_path, "text-generation", positions=True)
    assert caught.value.found == "RobertaForCausalLM, from 2 on"
