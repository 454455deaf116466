"""Load time and peak memory of an artifact in a process that has nothing else in it.

The process runs the emitted loader and never imports this package, so the figures are those of a
server that loads the artifact. PyTorch eager gets a process of its own as well.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compile.errors import EngineError

if TYPE_CHECKING:
    from lepton_compile.export import Source

__all__ = ["FreshStart", "fresh_eager", "fresh_start"]

TIMEOUT = 600.0

# VmHWM rather than ru_maxrss: the latter keeps the peak of the process that forked this one.
PEAK = """
from pathlib import Path

def peak():
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""

REPORT = """
print(json.dumps({
    "import_seconds": imported - start,
    "load_seconds": loaded - imported,
    "first_run_seconds": done - loaded,
    "peak_memory_bytes": peak(),
}))
"""

ENGINE = (
    PEAK
    + """
import importlib.util, json, runpy, sys, time

root, threads = Path(sys.argv[1]), int(sys.argv[2]) or None
sys.dont_write_bytecode = True  # it would lie in the artifact
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("loader", root / "loader.py")
loader = importlib.util.module_from_spec(spec)
sys.modules["loader"] = loader
spec.loader.exec_module(loader)
imported = time.perf_counter()
model = loader.load(root, threads=threads)
loaded = time.perf_counter()
ranges = model.manifest["ranges"]
(batch, _), (least, most) = ranges["batch"], ranges.get("source") or ranges["sequence"]
length = max(least, min(8, most))
if sys.argv[3] == "generate" and length < most and hasattr(type(model), "generate"):
    model.generate([[1] * length] * batch, max_new_tokens=min(4, most - length))
else:
    import numpy
    ones = numpy.ones((batch, length), numpy.int64)
    given_to = runpy.run_path(sys.argv[4])["given_to"]
    text = {"input_ids": ones, "attention_mask": ones}
    source = {"encoder_" + name: array for name, array in text.items()}
    if (sound := model.inputs.get("encoder_input_features")) is not None:
        source[sound["name"]] = numpy.zeros([batch, *sound["shape"][1:]], numpy.float32)
    model.run(given_to(model, {**text, **source}))
done = time.perf_counter()
"""
    + REPORT
)

EAGER = (
    PEAK
    + """
import json, sys, time

start = time.perf_counter()
import torch, transformers
from lepton_compile.export import Source
from lepton_compile.export.reference import load_reference
from lepton_compile.export.source.adapter import Adapter
spec, kind, path, trusted, adapter, task, threads = json.loads(sys.argv[1])
if threads:
    torch.set_num_threads(threads)
imported = time.perf_counter()
source = Source(spec, kind, Path(path), None, trusted)
source.adapter = adapter and Adapter(adapter, Path(adapter))
model = load_reference(source, task)
loaded = time.perf_counter()
ones = torch.ones((1, 8), dtype=torch.int64)
given = {"input_ids": ones, "attention_mask": ones}
if task in ("image-classification", "image-feature-extraction"):
    from lepton_compile.export.vision_part import image_shape
    given = {"pixel_values": torch.zeros((1, *image_shape(source)))}
if task == "automatic-speech-recognition":
    window = 1, model.config.num_mel_bins, 2 * model.config.max_source_positions
    given = {"input_features": torch.zeros(window), "decoder_input_ids": ones}
if task == "text2text-generation":
    given["decoder_input_ids"] = ones
with torch.inference_mode():
    model(**given)
done = time.perf_counter()
"""
    + REPORT
)


@dataclass(frozen=True)
class FreshStart:
    """A first start: seconds to import the loader, to load (digests included), to run once."""

    import_seconds: float
    load_seconds: float
    first_run_seconds: float
    peak_memory_bytes: int

    def as_dict(self) -> dict[str, float]:
        """The figures as JSON-ready data."""
        return asdict(self)


def fresh_start(
    artifact: Path, threads: int | None = None, *, generate: bool = False
) -> FreshStart:
    """Starts a process that loads the artifact through its own loader and runs it once.

    Args:
        artifact: its folder.
        threads: of the engine; None leaves the choice to the loader.
        generate: the one run generates a few tokens.

    Raises:
        EngineError: the process failed; its last words are in the error.
    """
    how = "generate" if generate else "run"
    return _measured(
        [ENGINE, str(artifact), str(threads or 0), how, str(Path(__file__).with_name("feeds.py"))],
        "the artifact does not load in a process of its own",
        str(artifact),
        f"run it by hand: python {shlex.quote(str(artifact / 'loader.py'))} --help",
    )


def fresh_eager(source: Source, task: str, threads: int | None) -> FreshStart:
    """The same of the fp32 PyTorch model: seconds to import torch and transformers, to load, to
    run eight tokens, or a picture, once.

    Raises:
        EngineError: the process failed; its last words are in the error.
    """
    adapter = None if source.adapter is None else str(source.adapter.path)
    given = [source.spec, source.kind, str(source.path), source.trust_remote_code, adapter, task]
    given.append(threads or 0)
    return _measured(
        [EAGER, json.dumps(given)],
        "PyTorch does not run the model in a process of its own",
        str(source.path),
        "leave it out with --no-eager",
    )


def _measured(program: list[str], failed: str, where: str, hint: str) -> FreshStart:
    command = [sys.executable, "-c", *program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EngineError(failed, where=where, found=last, hint=hint)
    return FreshStart(**json.loads(done.stdout.splitlines()[-1]))
