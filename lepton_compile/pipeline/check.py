"""The per-pass check: run the graph on a sample after each pass that changes numbers.

Weights go to one scratch file, keyed by the tensor they come from, so a pass that touches one
weight costs one weight. The graph runs on plain onnxruntime without its optimizations: what is
compared is our graph, not the runtime's version of it. A graph of half precision runs as its
emulation in fp32, and from then on a pass may move the numbers as far as rounding does; one that
rounds in a mixture of experts, as far as another choice of experts does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError, LeptonError, PassError
from lepton_compile.scratch import give_back_freed, on_scratch_disk
from lepton_passes.body import DIALECT, bodies
from lepton_passes.contract import CHOOSING, CLOSE, ROUNDING, LeptonPass, Tolerance
from lepton_passes.emulation import Emulation, half_of
from lepton_passes.linear import stored_precisions
from lepton_passes.tensors import StreamedTensor
from lepton_plugins.workroom import Workroom

from .blame import first_moved
from .empty_past import with_empty_past
from .lean_graph import in_order, lean
from .plain_session import plain_options
from .scratch import ScratchWeights
from .unsigned import with_unsigned_weights

__all__ = ["NumericCheck"]

# Over weights that are not packed these compute in fp32, and a check would not see them round.
ROUNDS_IF_PACKED = (b"MatMulNBits", b"QMoE")
NAMED = 8  # weights that a message names
_NARROWEST_FIRST = ("int4", "int8", "fp32")
_NUMBERS, _INTEGERS = "fc", "iu"  # kinds of numpy's types
# Halves are emulated, but those of caches beside our own kernels; their bytes are bytes.
_CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
_NOTHING = 1e-300  # less than a product of norms of fp32
# Numbers made float64 at a time: from 10,000 on OpenBLAS takes threads, which busy cores delay.
_AT_A_TIME = 1 << 13


class NumericCheck:
    """Compares outputs before and after each pass; a context manager that owns its scratch folder.

    Args:
        feeds: sample inputs by name, caches left out (they start empty). Rows may be padded on the
            right, where ``attention_mask`` is 0; padding is not compared.
        precision: fp32, int8 or int4: which of a pass' tolerances holds. Once some weights have
            fewer bits, because they came so or by a rule, theirs holds, also for the kernels that
            they are lowered to.
        library: kernels of our own that a pass may lower to.
    """

    def __init__(
        self, feeds: Mapping[str, np.ndarray], precision: str, library: Path | None = None
    ) -> None:
        self._library = library
        self._feeds = dict(feeds)
        self._precision = precision
        self._folder = Workroom("check")
        self._weights = ScratchWeights(Path(self._folder.name) / "weights.bin")
        self._before: dict[str, np.ndarray] = {}
        self._graph = b""
        self._emulation = Emulation()
        self._half: ir.DataType | None = None
        self._chooses = False

    def __enter__(self) -> NumericCheck:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._weights.close()
        self._folder.cleanup()

    def start(self, model: ir.Model, feeds: Mapping[str, np.ndarray] | None = None) -> None:
        """Run the graph as it is: what the first pass is compared with. ``feeds`` take the place of
        those that were given before.

        Raises:
            CheckpointError: the weights hold numbers that are not finite.
            PassError: the graph does not run, or gives such numbers all the same.
        """
        self._feeds = self._feeds if feeds is None else dict(feeds)
        self._chooses = any(body.nodes("Experts", domain=DIALECT) for body in bodies(model))
        self._look_at(model)
        self._before = self._outputs(model)
        if bad := [name for name, array in self._before.items() if not _all_finite(array)]:
            raise _not_finite(model, bad)

    def __call__(self, model: ir.Model, done: LeptonPass) -> float:
        self._look_at(model)
        graph, allowed = self._graph, self._allowed(done)
        after = self._outputs(model)
        worst, name = 0.0, ""
        for output, before in self._before.items():
            error = _relative_error(before, after[output])
            if error >= worst:
                worst, name = error, output
        cosine = min(_cosine(self._before[n], after[n]) for n in self._before)
        if not (worst <= allowed.error and cosine >= allowed.cosine):
            moved = PassError(
                f"the pass {done.name} changed the numbers more than it may",
                where=self._blamed(graph, allowed) or name,
                found=f"{name}: error {worst:.3g} of the output's size, cosine {cosine:.6f}",
                available=[f"error up to {allowed.error:g}", f"cosine from {allowed.cosine:g}"],
                hint=f"leave it out (passes: {{disable: [{done.name}]}}), or build with --no-check",
            )
            moved.error = worst
            raise moved
        self._before = after
        return worst

    def _look_at(self, model: ir.Model) -> None:
        """Note the narrowest weights: rules may ask for some with fewer bits than the others."""
        self._precision = min(
            (self._precision, *stored_precisions(model)), key=_NARROWEST_FIRST.index
        )

    def _blamed(self, before: bytes, allowed: Tolerance) -> str | None:
        """The first node of the main graph whose numbers moved too far."""

        def moved(a: np.ndarray, b: np.ndarray) -> bool:
            a, b = self._real(a), self._real(b)
            return not (_relative_error(a, b) <= allowed.error and _cosine(a, b) >= allowed.cosine)

        with suppress(PassError):  # what is known already is worth more than this
            return first_moved(before, self._graph, self._run, moved)
        return None

    def _allowed(self, done: LeptonPass) -> Tolerance:
        given = done.tolerances[self._precision]
        if self._half is not None:
            given = _wider(given, ROUNDING[self._half])
        return _wider(given, CHOOSING) if self._chooses and given.error > CLOSE.error else given

    def _outputs(self, model: ir.Model) -> dict[str, np.ndarray]:
        self._half = half_of(model)
        if self._half is not None:
            model = self._emulation(model)
        model = lean(with_unsigned_weights(model, self._weights.once), self._weights.once)
        ordered = in_order(model)
        with on_scratch_disk():
            self._graph = graph = self._weights.externalized(model)
            if ordered is not model:
                graph = self._weights.externalized(ordered)
        return {name: self._real(array) for name, array in self._run(graph).items()}

    def _run(self, graph: bytes) -> dict[str, np.ndarray]:
        import onnxruntime as ort

        path = Path(self._folder.name) / "model.onnx"
        with on_scratch_disk():
            path.write_bytes(graph)
        options = plain_options(packs=any(op in graph for op in ROUNDS_IF_PACKED))
        # Nodes run as they are listed: else the weights of all layers would be dequantized first.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        if self._library is not None:
            options.register_custom_ops_library(str(self._library))
        give_back_freed()
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            names = [o.name for o in session.get_outputs() if not o.name.startswith("present")]
            found = session.run(names, self._with_caches(session))
        except Exception as error:  # onnxruntime raises its own types, all of them RuntimeErrors
            raise PassError("the graph does not run after a pass", found=str(error)) from error
        return {name: np.asarray(array) for name, array in zip(names, found, strict=True)}

    def _with_caches(self, session: object) -> dict[str, np.ndarray]:
        inputs = session.get_inputs()  # type: ignore[attr-defined]
        feeds = with_empty_past(self._feeds, {each.name: each.shape for each in inputs})
        for each in inputs:
            if each.name in feeds and (dtype := _CACHE_TYPES.get(each.type)):
                feeds[each.name] = feeds[each.name].astype(dtype)
        return feeds

    def _real(self, output: np.ndarray) -> np.ndarray:
        given = self._feeds.get("attention_mask")
        if given is None or output.shape[:2] != given.shape:
            return output
        if given.all():
            return output.reshape(-1, *output.shape[2:])  # no copy: logits are many
        return np.asarray(output[given.astype(bool)])


def _wider(one: Tolerance, other: Tolerance) -> Tolerance:
    return Tolerance(max(one.error, other.error), min(one.cosine, other.cosine))


def _not_finite(model: ir.Model, outputs: list[str]) -> LeptonError:
    """Each weight is read once, to name those that hold such numbers."""
    found = [
        name.partition(":")[0]  # what follows says how the parameter is stored
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and not _is_finite(value.const_value)
    ]
    if names := list(dict.fromkeys(found)):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return CheckpointError(
            "the weights hold NaN or infinity: outputs are not finite even before any pass",
            found=", ".join(names[:NAMED]) + more,
            hint="download the checkpoint again, or save it again from where it was trained",
        )
    return PassError(
        "the model gives NaN or infinity before any pass, though its weights are finite",
        where=", ".join(outputs),
        hint="try the model in PyTorch in fp32; --no-check builds without looking",
    )


def _is_finite(tensor: ir.TensorProtocol) -> bool:
    if not tensor.dtype.is_floating_point():
        return True
    blocks = tensor.blocks() if isinstance(tensor, StreamedTensor) else [tensor.numpy()]
    return all(bool(np.isfinite(block.astype(np.float32)).all()) for block in blocks)


def _all_finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in _NUMBERS or bool(np.isfinite(array).all())


def _relative_error(before: np.ndarray, after: np.ndarray) -> float:
    """As a part of the output's size. Of what is no number (bool, text) it is the part of the
    entries that differ, and of integers, which may be levels or names of classes, the lesser
    of the two."""
    if (before.shape, before.dtype.kind) != (after.shape, after.dtype.kind):
        return float("inf")
    if np.array_equal(before, after):
        return 0.0  # of no numbers at all, too
    if before.dtype.kind in _NUMBERS:
        return _distance(before, after)
    changed = float(np.mean(before != after))
    if before.dtype.kind not in _INTEGERS:
        return changed
    # Not their own arithmetic, which wraps around.
    return min(changed, _distance(before.astype(np.float64), after.astype(np.float64)))


def _distance(before: np.ndarray, after: np.ndarray) -> float:
    if not _all_finite(after):
        return float("inf")
    # Where few texts get a number each, and much the same one, the range alone is next to nothing.
    span = float(before.max() - before.min())
    size = max(span, float(np.abs(before).max()))
    return float(np.abs(after - before).max()) / max(size, 1e-9)


def _cosine(before: np.ndarray, after: np.ndarray) -> float:
    if before.shape != after.shape:
        return -1.0
    if np.array_equal(before, after) or before.dtype.kind not in _NUMBERS:
        return 1.0  # of nothing but zeros, too; integers have no direction
    one = other = product = 0.0
    left, right = before.reshape(-1), after.reshape(-1)
    for start in range(0, len(left), _AT_A_TIME):  # in float64 all of them would be twice as much
        part = slice(start, start + _AT_A_TIME)
        a, b = left[part].astype(np.float64), right[part].astype(np.float64)
        one, other, product = one + float(a @ a), other + float(b @ b), product + float(a @ b)
    return product / max(math.sqrt(one) * math.sqrt(other), _NOTHING)
