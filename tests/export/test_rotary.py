"""Rotary embeddings: what turns heads and what gives rows, told from their numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.cohere import modeling_cohere
from transformers.models.deepseek_v2 import modeling_deepseek_v2
from transformers.models.gemma4 import modeling_gemma4
from transformers.models.glm import modeling_glm
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama
from transformers.models.llama4 import modeling_llama4

from lepton_compile.export.capture.rotation import Rotation, settle
from lepton_compile.export.capture.tables import columns_by_axis, tabulated
from lepton_passes.body import bodies

from .harness import FP32, compiled, empty_cache, padded, relative_error, run, save
from .zoo import DECODERS, MORE_DECODERS, SHARING
from .zoo_places import LONG_ROPE, PLACES

FAR = 20  # positions of the tables that are told here


@pytest.mark.parametrize(
    ("config", "turned"),
    [
        (MORE_DECODERS["gemma4"][0], 2 * 3),
        (SHARING["gemma4-e2b"][0], 2 * 4 + 3),
        (DECODERS["cohere"][0], 2 * 3),
        (MORE_DECODERS["cohere2"][0], 2 * 2),  # layers of full attention turn nothing
    ],
    ids=["gemma4", "gemma4-e2b", "cohere", "cohere2"],
)
def test_each_call_is_one_op(config: Callable[[], object], turned: int, tmp_path: Path) -> None:
    """A layer that reads the keys of another turns its query alone."""
    save(config, "text-generation", tmp_path)
    found = bodies(compiled(tmp_path, "text-generation")[0].model)
    assert sum(b.times * len(b.nodes("RotaryEmbedding")) for b in found) == turned
    assert [node for b in found for node in b.nodes("Cos", "Sin")] == []


def _neighbours(x: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    wide = [
        each[..., :half].repeat_interleave(2, -1).unsqueeze(unsqueeze_dim) for each in (cos, sin)
    ]
    return x * wide[0] + turned * wide[1]


def _of_one_axis(x: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Tensor:
    return x * cos.unsqueeze(1) + modeling_gemma4.rotate_half(x) * sin.unsqueeze(1)


@pytest.mark.parametrize(
    ("function", "rotation"),
    [
        (modeling_llama.apply_rotary_pos_emb, Rotation(interleaved=False)),
        (modeling_deepseek_v2.apply_rotary_emb, Rotation(interleaved=True, joint=True)),
        (modeling_llama4.apply_rotary_emb, Rotation(interleaved=True, joint=True, heads=2)),
        (modeling_gemma4.apply_rotary_pos_emb, Rotation(interleaved=False, single=True)),
        (_neighbours, Rotation(interleaved=True, single=True)),
        (modeling_glm.apply_rotary_pos_emb, Rotation(interleaved=True, partial=True)),
        (modeling_gpt_neox.apply_rotary_pos_emb, Rotation(interleaved=False, partial=True)),
        (_of_one_axis, None),
        (modeling_cohere.apply_rotary_pos_emb, Rotation(interleaved=True, doubled=True)),
        (modeling_gptj.apply_rotary_pos_emb, None),  # another signature
        (lambda q, k, turns: (q * turns.real[:, None].repeat(1, 1, 1, 2), k), None),
    ],
)
def test_what_a_function_does_is_told_from_numbers(
    function: Callable[..., tuple[Tensor, Tensor]], rotation: Rotation | None
) -> None:
    assert settle(function) == rotation


def _angles(positions: Tensor, frequency: float) -> Tensor:
    return positions[None, :, None] * frequency * torch.tensor([1.0, 0.1])


def _joint(angles: Tensor) -> Tensor:
    return torch.polar(torch.full_like(angles, 1.5), angles)


def _pair(angles: Tensor) -> tuple[Tensor, Tensor]:
    twice = torch.cat([angles, angles], -1)
    return twice.cos(), twice.sin()


def _doubled(angles: Tensor) -> tuple[Tensor, Tensor]:
    twice = angles.repeat_interleave(2, -1)
    return twice.cos(), twice.sin()


def test_rows_that_depend_on_their_own_position_alone() -> None:
    for give, joint, scale in ((_joint, True, 1.5), (_pair, False, 1.0), (_doubled, False, 1.0)):
        doubled = give is _doubled
        found = tabulated(lambda rows, give=give: give(_angles(rows, 1.0)), FAR, doubled)
        assert found is not None
        assert (found.joint, found.far, found.limit) == (joint, None, FAR)
        expected = np.array([[1.0, 1.0], [np.cos(3.0), np.cos(0.3)]]) * scale
        np.testing.assert_allclose(found.near[0][[0, 3]], expected, rtol=1e-6)
        np.testing.assert_allclose(found.near[1][3], np.sin([3.0, 0.3]) * scale, rtol=1e-6)


TABLE = tuple(
    turn(np.outer(np.arange(FAR, dtype=np.float32), np.float32([1.0, 0.3, 0.1, 0.02, 0.003])))
    for turn in (np.cos, np.sin)
)


def _by_axis(axes: list[int]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A module of five columns, each of which goes by one of the axes of positions (3, 1, 1)."""

    def give(positions: Tensor) -> tuple[Tensor, Tensor]:
        places = positions[:, 0, 0][torch.tensor(axes)]
        rows = [torch.from_numpy(each[places.numpy(), np.arange(5)]) for each in TABLE]
        cos, sin = (row.repeat(2)[None, None] for row in rows)
        return cos, sin

    return give


@pytest.mark.parametrize("axes", [[0, 0, 1, 1, 2], [0, 1, 2, 0, 0], [2, 1, 0, 2, 1], [1] * 5])
def test_columns_go_by_one_axis_each(axes: list[int]) -> None:
    assert columns_by_axis(_by_axis(axes), TABLE, doubled=False) == tuple(axes)


def test_columns_that_go_by_no_axis_or_by_several() -> None:
    whole = _by_axis([0, 1, 2, 0, 1])

    def fixed(positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = (each.clone() for each in whole(positions))
        for each in (cos, sin):
            each[..., [0, 5]] = 0.5
        return cos, sin

    def mixed(positions: Tensor) -> tuple[Tensor, Tensor]:
        return whole(positions.sum(0, keepdim=True).expand(3, 1, 1) % FAR)

    def turned(positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = whole(positions)  # where the axes differ, but not when one alone moves
        return (cos, sin) if len(positions.unique()) < 3 else (sin, cos)

    def near(positions: Tensor) -> tuple[Tensor, Tensor]:
        return whole(torch.where(positions < FAR - 1, 0, positions))

    for give in (fixed, mixed, turned, near):
        assert columns_by_axis(give, TABLE, doubled=False) is None
    assert columns_by_axis(whole, TABLE, doubled=True) is None


@pytest.mark.parametrize("limit", [2, 3, 7, 10, FAR - 1])
def test_rows_of_calls_that_reach_far(limit: int) -> None:
    found = tabulated(lambda p: _pair(_angles(p, 0.5 if p.max() >= limit else 1.0)), FAR)
    assert found is not None
    assert found.far is not None
    assert found.limit == limit
    assert found.near[0].shape == found.far[0].shape == (FAR, 2)
    np.testing.assert_allclose(found.near[1][limit - 1, 0], np.sin(limit - 1.0), rtol=1e-5)
    np.testing.assert_allclose(found.far[1][FAR - 1, 0], np.sin((FAR - 1) / 2), rtol=1e-5)


@pytest.mark.parametrize(
    "frequency",
    [
        lambda p: 1.0 / max(float(p.max()), 8.0),  # dynamic scaling, from 9 positions on
        lambda p: 0.25 if p.max() >= 15 else 0.5 if p.max() >= 8 else 1.0,
        lambda p: 1.0 + float(len(p) == 3),
    ],
)
def test_rows_that_are_in_no_table(frequency: Callable[[Tensor], float]) -> None:
    assert tabulated(lambda p: _pair(_angles(p, frequency(p))), FAR) is None


def test_pairs_in_another_layout_than_functions_read_are_in_no_table() -> None:
    assert tabulated(lambda rows: _pair(_angles(rows, 1.0)), FAR, doubled=True) is None
    assert tabulated(lambda rows: _doubled(_angles(rows, 1.0)), FAR, doubled=False) is None


def test_pairs_whose_halves_differ_are_in_no_table() -> None:
    for odd in (0, 1):

        def give(rows: Tensor, odd: int = odd) -> list[Tensor]:
            pair = list(_pair(_angles(rows, 1.0)))
            pair[odd] = pair[odd][..., :2].repeat_interleave(2, -1)
            return pair

        assert tabulated(give, FAR) is None


@pytest.mark.parametrize("length", [6, 12])
def test_long_rope_turns_by_the_longest_row(length: int, tmp_path: Path) -> None:
    """Its configuration has other frequencies for calls that reach beyond the eighth position."""
    model = save(LONG_ROPE, "text-generation", tmp_path)
    exported, session = compiled(tmp_path, "text-generation")
    assert (exported.how, exported.kinds) == ("stamped", 1)
    ids, mask = padded(2, length, "left")
    given = {"input_ids": ids, "attention_mask": mask}
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        named = {k: torch.from_numpy(v) for k, v in given.items()}
        out = model(**named, position_ids=torch.from_numpy(positions), use_cache=False)
    found = run(session, {**given, **empty_cache(session, 2)})["logits"]
    real = mask.astype(bool)
    assert relative_error(found[real], out.logits.numpy()[real]) <= FP32


def test_layers_with_a_module_each_share_its_table(tmp_path: Path) -> None:
    save(PLACES["moshi"][0], "text-generation", tmp_path)
    exported, _ = compiled(tmp_path, "text-generation")
    assert (exported.how, exported.kinds) == ("stamped", 1)
    tables = [name for name in exported.model.graph.initializers if name.startswith("rotary.")]
    assert sorted(tables) == ["rotary.0.cos", "rotary.0.sin"]
