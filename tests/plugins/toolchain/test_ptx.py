"""PTX made plain: parameters, debug information, the architecture's name."""

from __future__ import annotations

import pytest

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.ptx import entry_of, plain_target, tidy

# As Triton writes it: two pointers of its own behind the kernel's, debug lines and a section.
PTX = """//
.version 8.7
.target sm_90a
.address_size 64

	.file	1 "/home/somebody/kernels.py"
.visible .entry scale(
	.param .u64 .ptr .global .align 16 scale_param_0,
	.param .u32 scale_param_1,
	.param .u64 .ptr .global .align 1 scale_param_2,
	.param .u64 .ptr .global .align 1 scale_param_3
)
.reqntid 128
{
	.reg .b64 	%rd<3>;
	.loc	1 12 3
	ld.param.b64 	%rd1, [scale_param_0];
	ld.param.b32 	%r1, [scale_param_1];
	ret;
}
	.section	.debug_abbrev
	{
.b8 1
	}
	.section	.debug_info
	{
.b8 2
	}
"""


def test_only_the_contract_is_left() -> None:
    plain = tidy(PTX, 2)
    assert entry_of(plain) == (
        "scale",
        [".param .u64 .ptr .global .align 16 scale_param_0", ".param .u32 scale_param_1"],
    )
    assert "ld.param.b32 	%r1, [scale_param_1];" in plain
    assert ".reqntid 128" in plain


def test_no_trace_of_the_sources_is_left() -> None:
    plain = tidy(PTX, 2)
    for word in ("somebody", ".loc", ".file", ".debug", ".b8"):
        assert word in PTX
        assert word not in plain


def test_a_used_parameter_is_not_taken_off() -> None:
    """Scratch memory that nobody would pass."""
    with pytest.raises(PluginError, match="wants scratch memory") as raised:
        tidy(PTX, 1)
    assert (raised.value.where, raised.value.found) == ("scale", ".param .u32 scale_param_1")


def test_ten_is_not_taken_for_one() -> None:
    """``param_1`` is a prefix of ``param_10``."""
    uses_ten = PTX.replace("scale_param_1]", "scale_param_10]")
    assert ".param .u32 scale_param_1" not in tidy(uses_ten, 1)


def test_a_lost_parameter_is_an_error() -> None:
    with pytest.raises(PluginError, match="lost a parameter") as raised:
        tidy(PTX, 5)
    assert raised.value.found == "4 parameters, 5 expected"


@pytest.mark.parametrize(("text", "count"), [("", "0"), (PTX + PTX, "2")])
def test_there_is_one_kernel(text: str, count: str) -> None:
    with pytest.raises(PluginError, match="another number of kernels") as raised:
        entry_of(text)
    assert raised.value.found == count


def test_the_plain_architecture() -> None:
    assert ".target sm_90\n" in plain_target(PTX)
    assert plain_target(plain_target(PTX)) == plain_target(PTX)
    assert plain_target(PTX).replace("sm_90", "sm_90a") == PTX
