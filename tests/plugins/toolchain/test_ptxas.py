"""The assembler, on PTX of a few lines."""

from __future__ import annotations

import re

import pytest

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain import ptxas
from lepton_plugins.toolchain.ptxas import assemble, assembler, assembler_version

pytest.importorskip("triton")

EMPTY = """.version 8.7
.target {target}
.address_size 64
.visible .entry nothing(.param .u64 nothing_param_0)
{{
	{body}
	ret;
}}
"""


def ptx(target: str, body: str = "") -> str:
    return EMPTY.format(target=target, body=body)


def many_numbers(count: int) -> str:
    """``count`` numbers that are all alive at once."""
    lines = [
        f".reg .f32 %f<{count}>;",
        ".reg .u64 %rd<1>;",
        "ld.param.u64 %rd0, [nothing_param_0];",
    ]
    lines += [f"ld.volatile.global.f32 %f{at}, [%rd0+{4 * at}];" for at in range(count)]
    lines += [f"st.volatile.global.f32 [%rd0+{4 * at}], %f{at};" for at in reversed(range(count))]
    return "\n\t".join(lines)


@pytest.mark.parametrize(
    "target", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120"]
)
def test_every_architecture_assembles(target: str) -> None:
    made = assemble(ptx(target), "nothing")
    assert made.target == target
    assert made.ptx == ptx(target)
    assert made.cubin.startswith(b"\x7fELF")
    assert made.spill_bytes == 0
    assert made.registers > 0


def test_spills_are_counted() -> None:
    """300 numbers do not fit into 255 registers; stores and loads both count."""
    made = assemble(ptx("sm_90", many_numbers(300)), "nothing")
    assert made.registers > 200
    assert made.spill_bytes >= 2 * 4 * (300 - 255)


def test_more_numbers_more_registers() -> None:
    few, many = (assemble(ptx("sm_90", many_numbers(n)), "nothing") for n in (8, 64))
    assert few.registers < many.registers
    assert few.spill_bytes == many.spill_bytes == 0


def test_an_error_is_in_the_words_of_the_assembler() -> None:
    with pytest.raises(PluginError, match="ptxas declines") as raised:
        assemble(ptx("sm_90", "frobnicate;"), "nothing")
    assert raised.value.where == "nothing, sm_90"
    assert "frobnicate" in str(raised.value.found)


def test_nothing_of_this_machine_is_in_the_code() -> None:
    made = assemble(ptx("sm_90"), "nothing")
    assert made == assemble(ptx("sm_90"), "nothing"), "two temporary folders, the same bytes"
    assert b"/tmp" not in made.cubin


def test_the_version_is_one() -> None:
    assert assembler().is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", assembler_version())


def test_without_an_assembler_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas, "find_spec", lambda _: None)
    monkeypatch.setattr(ptxas.shutil, "which", lambda _: None)
    with pytest.raises(PluginError, match="not installed") as raised:
        assembler.__wrapped__()
    assert "plugins" in str(raised.value.hint)
