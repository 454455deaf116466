"""Plans with one profile for prompts and steps, on the double: one context, and its graphs."""

from __future__ import annotations

import pytest

from lepton_compile.runtime import LoaderError
from tests.runtime import plans
from tests.runtime.double import HostDevice
from tests.runtime.on_double import BUCKETS, GROWING, PROMPTS, Opener, contexts_of, engine


def test_one_profile_is_one_context(opened: Opener) -> None:
    joint = opened(plans.decoder_plan(batch=2, joint=True), "trt")
    assert contexts_of(joint) == [0]
    with pytest.raises(LoaderError, match="3 prompts, and the engine takes 2"):
        joint.generate(PROMPTS[:3], max_new_tokens=2)
    several = opened(plans.decoder_plan(buckets=BUCKETS, joint=True), "trt", **GROWING)
    cache = several.new_cache(2, 10)
    assert contexts_of(several) == [0]
    cache.start([PROMPTS[0], PROMPTS[1]])
    for _ in range(13):
        cache.step([7, 7], [True, True])
    assert (cache.capacity, contexts_of(several)) == (40, [0, 1])
    cache.close()


def test_a_context_of_both_captures_steps_anew_behind_each_prompt(
    device: HostDevice, opened: Opener
) -> None:
    split, joint = (opened(plans.decoder_plan(joint=both), "trt") for both in (False, True))
    # A prompt of one token has the shapes of a step, and lies elsewhere.
    for prompts in (PROMPTS[:1], PROMPTS[1:2], PROMPTS[:1], PROMPTS):
        expected = split.generate(prompts, max_new_tokens=6, stop_tokens=())
        before = {call: device.calls.count(call) for call in ("begin_capture", "launch")}
        found = joint.generate(prompts, max_new_tokens=6, stop_tokens=())
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        steps = max(len(one.tokens) for one in found) - 1
        assert steps > 2
        assert device.calls.count("begin_capture") - before["begin_capture"] == 1
        assert device.calls.count("launch") - before["launch"] == steps - 1


def test_rtx_captures_where_one_context_does_both(opened: Opener) -> None:
    other = opened(plans.decoder_plan(joint=True))
    strategies = [context.config.cuda_graph_strategy for context in engine(other).contexts]
    assert strategies == [plans.Strategy.WHOLE_GRAPH_CAPTURE]
