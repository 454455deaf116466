"""What a loader reads of a real build: ranges of ids, and where texts are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers

import lepton_compile as lc
from lepton_compile.runtime import LoaderError
from tests.runtime import tiny
from tests.small import bert, llama, saved

LIMIT = 7
ROWS = 4096  # A table of few rows is not quantized.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT in int8, from a folder of sentence-transformers that cuts texts."""
    folder = tmp_path_factory.mktemp("built")
    config = bert(vocab_size=ROWS, num_hidden_layers=1, max_position_embeddings=32)
    saved("BertModel", config, folder / "model")
    (folder / "model/tokenizer.json").write_text(tiny.tokenizer_json("words"), "utf-8")
    write(folder / "model/tokenizer_config.json", {"model_max_length": 20})
    write(folder / "model/sentence_bert_config.json", {"max_seq_length": LIMIT})
    modules = {"": "Transformer", "1_Pooling": "Pooling"}
    named = [{"type": f"models.{kind}", "path": path} for path, kind in modules.items()]
    write(folder / "model/modules.json", named)
    write(folder / "model/1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    asked = {"prompts": {"query": "w9 w8 ", "document": ""}, "default_prompt_name": "query"}
    write(folder / "model/config_sentence_transformers.json", asked)
    made = lc.build(
        model=str(folder / "model"),
        quantize="int8",
        output=folder / "artifact",
        verify=False,
        check=False,
    )
    return made.path


def write(file: Path, value: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value), "utf-8")


def test_ids_outside_a_quantized_table_are_refused(built: Path) -> None:
    graph = onnx.load(built / "engines/ort-cpu/model.onnx", load_external_data=False).graph
    assert "GatherBlockQuantized" in {node.op_type for node in graph.node}
    with lc.load(built, threads=1) as model:
        assert model.manifest["ranges"]["input_ids"] == [0, ROWS - 1]
        assert model.run({"input_ids": [[0, ROWS - 1]]})
        for ids in ([[5, ROWS]], [[-1, 5]]):
            with pytest.raises(LoaderError, match="outside the vocabulary, 0 to 4095"):
                model.run({"input_ids": ids})
        with pytest.raises(LoaderError, match=r"token_type_ids: \[7\] are outside .* 0 to 1"):
            model.run({"input_ids": [[5, 6]], "token_type_ids": [[0, 7]]})


def test_numbers_that_mean_nothing_are_refused(built: Path, tmp_path: Path) -> None:
    """A mask that is added to scores would be read the wrong way round; -1 would drop a token."""
    saved("LlamaForCausalLM", llama(), tmp_path / "model")
    out = tmp_path / "out"
    lc.build(model=str(tmp_path / "model"), output=out, verify=False, check=False)
    ids = [[5, 6, 7]]
    for folder in (built, out):
        with lc.load(folder, threads=1) as model:
            assert model.run({"input_ids": ids, "attention_mask": np.array([[True, True, False]])})
            for mask in ([[0, 0, -1]], [[1, 2, 1]]):
                with pytest.raises(LoaderError, match="are outside its range, 0 to 1"):
                    model.run({"input_ids": ids, "attention_mask": mask})
    with lc.load(out, threads=1) as model, pytest.raises(LoaderError, match=r"\['input_ids'\]$"):
        model.run({})  # all else may be left out
    feeds = {"input_ids": ids, "attention_mask": [[0, 1, 1]], "logits_to_keep": -1}
    with lc.load(out, threads=1) as model, pytest.raises(LoaderError, match="logits_to_keep"):
        model.run(feeds)


def test_texts_are_cut_where_sentence_transformers_cuts_them(built: Path) -> None:
    words = [f"w{n}" for n in range(4, 24)]
    with lc.load(built, threads=1) as model:
        assert model.manifest["embedding"]["max_tokens"] == LIMIT
        texts = [" ".join(words[:n]) for n in (20, LIMIT, LIMIT + 1)]
        whole, cut, longer = model.embed(texts, prompt="")
        assert whole == pytest.approx(cut, abs=1e-6)
        assert np.array_equal(longer, cut)
        ids = [list(range(4, 4 + LIMIT + 1))]
        free = model.run({"input_ids": ids})["sentence_embedding"][0]
        assert free != pytest.approx(cut, abs=1e-3)


def test_prompts_go_in_front(built: Path) -> None:
    with lc.load(built, threads=1) as model:
        (plain,), (led,) = model.embed(["w5 w6"], ""), model.embed(["w9 w8 w5 w6"], "")
        assert np.array_equal(model.embed(["w5 w6"]), [led])  # by default
        assert np.array_equal(model.embed(["w5 w6"], prompt="query"), [led])
        assert np.array_equal(model.embed(["w5 w6"], prompt="document"), [plain])
        with pytest.raises(
            LoaderError, match=r"no prompt 'passage'; there are \['document', 'query'\]"
        ):
            model.embed(["w5 w6"], prompt="passage")
        for prompt in ("", "query"):
            with pytest.raises(LoaderError, match="give a list of texts"):
                model.embed("w5 w6", prompt)
            with pytest.raises(LoaderError, match="give a list of texts"):
                model.embed([3], prompt)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("own", "tokenizer", "expected"),
    [(None, 20, 20), (None, 1e30, None), (None, None, None), (256, 20, 256)],
)
def test_without_a_setting_of_its_own_the_tokenizer_counts(
    tmp_path: Path, own: int | None, tokenizer: float | None, expected: int | None
) -> None:
    from lepton_compile.export import resolve
    from lepton_compile.export.sentence import text_limit

    transformers.BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    write(tmp_path / "modules.json", [{"type": "models.Transformer", "path": ""}])
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": own})
    write(tmp_path / "tokenizer_config.json", {"model_max_length": tokenizer})
    assert text_limit(resolve(str(tmp_path), tmp_path)) == expected


def test_entities_are_those_of_transformers(tmp_path: Path) -> None:
    """A model that knows a label for each word, and the pipeline's own code on its logits."""
    folder, labels = tmp_path / "model", ["O", "B-PER", "I-PER", "LOC"]
    config = bert(vocab_size=tiny.VOCABULARY, num_labels=4, id2label=dict(enumerate(labels)))
    saved("BertForTokenClassification", config, folder)
    (folder / "tokenizer.json").write_text(tiny.tokenizer_json("words"), "utf-8")
    built = lc.build(model=folder, output=tmp_path / "out", check=False, verify=False)
    network = transformers.BertForTokenClassification.from_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    theirs = transformers.TokenClassificationPipeline(
        model=network, tokenizer=tokenizer, aggregation_strategy="simple", device=-1
    )
    sizes = {4: 12, 21: 5, 40: 12}  # what is shorter is padded, and its padding no entity
    texts = [" ".join(f"w{n}" for n in range(at, at + size)) for at, size in sizes.items()]
    with lc.load(built.path, threads=1) as model:
        found = model.entities(texts)
        assert [len(row) for row in model.classify(texts)] == [*sizes.values()]
        with pytest.raises(LoaderError, match="number 0 of them is"):
            model.entities([("w5", "w6")])  # type: ignore[list-item]
    for text, made, wanted in zip(texts, found, theirs(texts), strict=True):
        assert [one["score"] for one in made] == pytest.approx([one["score"] for one in wanted])
        assert [(one["label"], one["start"], one["end"], one["text"]) for one in made] == [
            (one["entity_group"], one["start"], one["end"], text[one["start"] : one["end"]])
            for one in wanted
        ]
    assert len({one["label"] for made in found for one in made}) > 1


def test_positions_that_no_table_has_are_refused(tmp_path: Path) -> None:
    """-1 would be the last row of the table, not an error."""
    saved("LlamaForCausalLM", llama(), tmp_path / "model")
    how: dict[str, Any] = {"verify": False, "check": False, "output": tmp_path / "out"}
    made = lc.build(model=str(tmp_path / "model"), position_ids=True, **how)
    with lc.load(made.path, threads=1) as model:
        assert model.manifest["ranges"]["position_ids"] == [0, 63]
        feeds: dict[str, Any] = {"input_ids": [[5, 6, 7]], "position_ids": [[61, 62, 63]]}
        assert np.isfinite(model.run(feeds)["logits"]).all()
        for wrong in (-1, 64):
            with pytest.raises(LoaderError, match=r"position_ids: .* outside its range, 0 to 63"):
                model.run({**feeds, "position_ids": [[0, 1, wrong]]})
