"""The compiled kernels on a device, through the launcher, against PyTorch in fp32.

What only a device can show: fused arithmetic, blocks that run at once, machine code, streams and
graphs. Needs torch with CUDA, triton and cuda-bindings; ``pytest -m gpu tests/plugins``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from lepton_plugins.attention.compiled import compile_kernel, write_kernels
from lepton_plugins.attention.driver import CudaDriver
from lepton_plugins.attention.launch import KERNELS
from lepton_plugins.attention.launcher import Kernels
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.tiles import ARCHITECTURES
from lepton_plugins.attention.variant import Variant
from tests.plugins.attention.cases import Case, assert_matches, expected, inputs
from tests.plugins.attention.pytorch import appended, array, attention, tensor

torch: Any = pytest.importorskip("torch")
pytest.importorskip("triton")

FP8 = "float8_e4m3fn"


def variant(head_dim: int, group: int, heads: int, cache: str = "", **flags: Any) -> Variant:
    scales = {"key_scale": 0.04, "value_scale": 0.03} if cache else {}
    dtype = flags.pop("dtype", "bfloat16")
    return Variant(dtype, group * heads, heads, head_dim, cache, **scales, **flags)


VARIANTS = {
    "llama": variant(128, 4, 8),
    "gemma": variant(256, 4, 1),
    "gemma-local": variant(256, 4, 1, window=512),
    "narrow-window": variant(64, 1, 2, window=7),
    "softcap": variant(256, 2, 2, softcap=50.0),
    "sinks": variant(64, 8, 2, sinks=True, window=128),
    "fp16": variant(128, 1, 4, dtype="float16"),
    "two-chunks": variant(80, 1, 4),
    "wide": variant(320, 4, 1),
    "widest": variant(512, 8, 1),
    "int8": variant(128, 4, 2, "int8"),
    "int8-all": variant(256, 4, 1, "int8", window=100, softcap=30.0, sinks=True),
    "fp8": variant(128, 4, 2, FP8),
}
DECODE = [(1, (0,)), (1, (1, 63, 64, 1000)), (3, (700, 0)), (16, (31, 1007)), (1, (4095,))]
PREFILL = [(17, (0, 100)), (128, (0,)), (150, (3, 0, 511)), (1000, (0,)), (513, (1500,))]
SIZES = [*DECODE, *PREFILL]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    """Every variant that this device can have, compiled for it, several kernels at once."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU, or this torch has no CUDA")
    capability = CudaDriver().capability()
    if capability not in ARCHITECTURES:
        pytest.skip(f"no tiles for compute capability {capability / 10}")
    made = [v for v in VARIANTS.values() if v.cache_dtype != FP8 or ARCHITECTURES[capability].fp8]
    folder, kept = tmp_path_factory.mktemp("device") / "kernels", tmp_path_factory.mktemp("kept")
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), get_context("spawn")) as pool:
        asked = itertools.product(KERNELS, made)
        tasks = [pool.submit(compile_kernel, *each, capability, cache=kept) for each in asked]
        for task in tasks:
            task.result()
    write_kernels(folder, made, [capability], cache=kept)
    torch.cuda.init()
    torch.zeros(1, device="cuda")  # PyTorch's context is current from here on
    with Kernels(folder) as opened:
        yield opened


def launch(
    kernels: Kernels, case: Case, tensors: dict[str, Any], stream: int = 0, most: int | None = None
) -> Any:
    """One call; the output, which begins as not-a-number."""
    sizes = {"batch": case.batch, "sequence": case.sequence, "capacity": case.capacity}
    size = kernels.workspace_bytes(case.variant, **sizes)
    scratch = torch.full((max(size, 4) // 4,), float("nan"), device="cuda")
    output = torch.full_like(tensors["query"], float("nan"))
    addresses = {name: each.data_ptr() for name, each in tensors.items()}
    kernels.launch(
        case.variant,
        addresses | {"output": output.data_ptr()},
        **sizes,
        workspace=scratch.data_ptr(),
        stream=stream,
        most_splits=None if most is None else lambda *_: most,
    )
    torch.cuda.synchronize()
    return output


def on_device(case: Case) -> dict[str, Any]:
    return {name: tensor(values, "cuda") for name, values in inputs(case).items()}


def judge(case: Case, output: Any, truth: Any) -> None:
    """Within the tolerance of the spec, element by element."""
    allowed = SPEC.tolerance[case.variant.dtype]
    found = output.float()
    assert torch.isfinite(found).all(), f"not finite: {case}"
    excess = (found - truth).abs() - (allowed.absolute + allowed.relative * truth.abs())
    assert float(excess.max()) <= 0, f"off by {float((found - truth).abs().max()):.3g}: {case}"


def case_of(name: str, sequence: int, past: tuple[int, ...]) -> Case:
    return Case(VARIANTS[name], sequence, max(past) + sequence + 5, past)


@pytest.mark.parametrize(
    ("name", "sequence", "past"),
    [("llama", 3, (0, 9)), ("int8-all", 20, (3,)), ("sinks", 5, (30, 0)), ("fp8", 2, (7,))],
)
def test_pytorch_says_what_the_reference_says(
    name: str, sequence: int, past: tuple[int, ...]
) -> None:
    """On the CPU, so everywhere: what the device is held to is itself held to numpy."""
    case = case_of(name, sequence, past)
    tensors = {name: tensor(values, "cpu") for name, values in appended(case).items()}
    for part in ("key", "value"):
        there = array(tensors[f"{part}_cache"], case.variant.cache_dtype)
        assert there.tobytes() == expected(case)[f"present_{part}"].tobytes()
    found = attention(case, tensors).numpy()
    np.testing.assert_allclose(found, expected(case)["output"], rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("sequence", "past"), SIZES, ids=str)
def test_a_call_is_what_pytorch_computes(
    kernels: Kernels, name: str, sequence: int, past: tuple[int, ...]
) -> None:
    """Output within the tolerance, caches bit for bit and nothing else in them touched."""
    case = case_of(name, sequence, past)
    if case.variant not in kernels.index.variants:
        pytest.skip("this device has no fp8")
    tensors, want = on_device(case), appended(case)
    output = launch(kernels, case, tensors)
    for part in ("key_cache", "value_cache"):
        found = array(tensors[part], case.variant.cache_dtype)
        assert found.tobytes() == want[part].tobytes(), f"{part} differs: {case}"
    judge(case, output, attention(case, tensors))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["llama", "gemma-local", "int8-all", "sinks"])
def test_a_full_cache_drops_what_does_not_fit(kernels: Kernels, name: str) -> None:
    """Held to the numpy reference, as on the CPU."""
    for sequence, past in ((1, (0, 48)), (5, (47, 33)), (40, (0, 47))):
        case = Case(VARIANTS[name], sequence, capacity=48, past=past)
        tensors = on_device(case)
        output = launch(kernels, case, tensors)
        kind = case.variant.cache_dtype
        assert_matches(
            case,
            {
                "output": array(output, case.variant.dtype),
                "present_key": array(tensors["key_cache"], kind),
                "present_value": array(tensors["value_cache"], kind),
            },
        )


@pytest.mark.gpu
@pytest.mark.parametrize("most", [1, 2, 3, 7, 16, 64])
def test_the_number_of_splits_changes_little(kernels: Kernels, most: int) -> None:
    case = case_of("gemma", 2, (3000, 0, 129))
    tensors = on_device(case)
    output = launch(kernels, case, tensors, most=most)
    judge(case, output, attention(case, tensors))


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES[2:7], ids=str)
@pytest.mark.parametrize("name", ["gemma-local", "int8"])
def test_the_same_call_gives_the_same_bits(
    kernels: Kernels, name: str, size: tuple[int, tuple[int, ...]]
) -> None:
    """Thirty times: blocks that ran into each other would differ once."""
    case = case_of(name, *size)
    tensors = on_device(case)
    outputs = [
        launch(kernels, case, {name: each.clone() for name, each in tensors.items()})
        for _ in range(31)
    ]
    assert all(torch.equal(each, outputs[0]) for each in outputs)


@pytest.mark.gpu
def test_steps_of_a_text_fit_together(kernels: Kernels) -> None:
    """A prefill and single steps over one cache are the prefill of all."""
    of, total, prompt = VARIANTS["gemma-local"], 700, 650
    whole = Case(of, total, total, (0,))
    tensors = on_device(whole)
    want = launch(kernels, whole, tensors)
    cache = {name: tensor(inputs(whole)[name], "cuda") for name in ("key_cache", "value_cache")}
    parts = []
    for first, last in [(0, prompt), *((at, at + 1) for at in range(prompt, total))]:
        step = Case(of, last - first, total, (first,))
        given = {n: tensors[n][:, first:last].contiguous() for n in ("query", "key", "value")}
        given["past_lengths"] = torch.tensor([first], dtype=torch.int32, device="cuda")
        parts.append(launch(kernels, step, given | cache))
    truth = torch.cat(parts, 1).float()
    allowed = SPEC.tolerance[of.dtype]  # each of the two may be off by as much
    difference = (want.float() - truth).abs()
    assert float((difference - 2 * (allowed.absolute + allowed.relative * truth.abs())).max()) <= 0


@pytest.mark.gpu
def test_on_a_stream_and_in_a_graph(kernels: Kernels) -> None:
    """Captured once, replayed with other lengths: nothing of a launch depends on them."""
    case = case_of("llama", 1, (900, 20))
    tensors = on_device(case)
    sizes = {"batch": case.batch, "sequence": 1, "capacity": case.capacity}
    kernels.prepare(case.variant)
    scratch = torch.zeros(kernels.workspace_bytes(case.variant, **sizes), dtype=torch.uint8).cuda()
    output = torch.zeros_like(tensors["query"])
    addresses = {n: t.data_ptr() for n, t in tensors.items()} | {"output": output.data_ptr()}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        kernels.launch(
            case.variant, addresses, **sizes, workspace=scratch.data_ptr(), stream=stream
        )
    for past in ((900, 20), (5, 600)):
        other = Case(case.variant, 1, case.capacity, past, seed=sum(past))
        for name, values in inputs(other).items():
            tensors[name].copy_(tensor(values, "cuda"))
        output.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        judge(other, output, attention(other, tensors))


@pytest.mark.gpu
def test_ptx_does_what_machine_code_does(kernels: Kernels) -> None:
    """What a later device of the same kind would run."""

    class OnlyPtx(CudaDriver):
        def load(self, image: bytes) -> Any:
            if image.startswith(b"\x7fELF"):
                self._call("cuModuleLoadData", b"no image of any kind\0")
            return super().load(image)

    with Kernels(kernels.index.folder, OnlyPtx()) as from_ptx:
        for sequence, past in ((1, (900, 20)), (150, (3, 0))):
            case = case_of("gemma-local", sequence, past)
            tensors = on_device(case)
            output = launch(from_ptx, case, tensors)
            judge(case, output, attention(case, tensors))


@pytest.mark.gpu
def test_memory_of_the_driver_does_as_well(kernels: Kernels) -> None:
    """Addresses need not come from PyTorch: every tensor in memory of the driver."""
    from cuda.bindings import driver as cuda

    case = case_of("fp16", 1, (300,))
    arrays = inputs(case)
    arrays["output"] = np.zeros_like(arrays["query"])
    sizes = {"batch": 1, "sequence": 1, "capacity": case.capacity}
    addresses = {}
    for name, values in arrays.items():
        code, address = cuda.cuMemAlloc(values.nbytes)
        assert not code
        cuda.cuMemcpyHtoD(address, values.ctypes.data, values.nbytes)
        addresses[name] = int(address)
    _, scratch = cuda.cuMemAlloc(kernels.workspace_bytes(case.variant, **sizes))
    kernels.launch(case.variant, addresses, **sizes, workspace=int(scratch))
    cuda.cuCtxSynchronize()
    found = {}
    for name in ("output", "key_cache", "value_cache"):
        cuda.cuMemcpyDtoH(arrays[name].ctypes.data, addresses[name], arrays[name].nbytes)
        found[name.replace("key_cache", "present_key").replace("value_cache", "present_value")] = (
            arrays[name]
        )
    assert_matches(case, found)
    for address in (*addresses.values(), int(scratch)):
        cuda.cuMemFree(address)
