"""Write ``typings/tensorrt/__init__.pyi`` from the bindings of TensorRT 11, without its libraries.

    pip download --no-deps -d /tmp/wheels tensorrt-cu13-bindings==11.4.0.106
    python scripts/stubs/tensorrt.py /tmp/wheels/tensorrt_cu13_bindings-*.whl

The bindings are one extension module that needs nine functions of libraries which come from another
index and which only a GPU can use. Here, empty functions of those names stand in for them, which is
enough to import the module and to read the names, arguments and types that it registers. The type
checker then holds our code to them. Needs ``gcc``; the wheel must fit the interpreter.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[2] / "typings" / "tensorrt" / "__init__.pyi"

NEEDED = re.findall(
    r"\w+",
    """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion
getBuilderPluginRegistry getPluginRegistry initLibNvInferPlugins
""",
)
LIBRARIES = ("libnvinfer.so.11", "libnvonnxparser.so.11", "libnvinfer_plugin.so.11")

CLASSES = re.findall(
    r"\w+",
    """
Builder BuilderFlag CausalMaskKind CudaGraphStrategy DataType Dims DimsExprs
DynamicPluginTensorDesc EngineInspector ErrorCode ErrorCodeTRT ExecutionContextAllocationStrategy
HardwareCompatibilityLevel IAttention IBuilderConfig ICudaEngine IDimensionExpr IErrorRecorder
IExecutionContext IExprBuilder IHostMemory IKVCacheUpdateLayer ILayer ILogger
INetworkDefinition IOptimizationProfile IPluginCapability IPluginCreatorInterface
IPluginCreatorV3One IPluginRegistry IPluginResourceContext IPluginV3 IPluginV3OneBuild
IPluginV3OneBuildV2 IPluginV3OneCore IPluginV3OneRuntime IProgressMonitor IRuntimeConfig
IStreamReaderV2 IStreamWriter ITensor ITimingCache IVersionedInterface KernelLaunchParams
LayerInformationFormat LayerType Logger MemoryPoolType NetworkDefinitionCreationFlag OnnxParser
OnnxParserFlag ParserError PluginCapabilityType PluginField PluginFieldCollection PluginFieldType
PluginTensorDesc PreviewFeature ProfilingVerbosity Runtime SerializationFlag TensorFormat
TensorIOMode TensorLocation TensorRTPhase
""",
)

# What the bindings' own text says wrongly: the C++ arguments of a method that Python overrides.
CORRECTED = {("IStreamWriter", "write"): "(self, data: bytes) -> int"}
# Layers are never added by hand: an ONNX file does that for us.
LEFT_OUT = re.compile(r"^(_|add_(?!optimization_profile|plugin))")
# What the bindings do in C++, where no signature tells of it.
BASES = {"Dims": "Sequence[int]"}
ADDED = {"IHostMemory": "def __buffer__(self, flags: int, /) -> memoryview: ..."}

HEADER = '''"""Names, arguments and types of TensorRT {version}, as its bindings register them.

Written by scripts/stubs/tensorrt.py. Classes that our code does not use are left out.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, overload

__version__: str
'''


def bindings(wheel: Path, folder: Path) -> Any:
    """The module of the bindings, imported over stand-ins for its libraries."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    source = folder / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in NEEDED))
    for name in LIBRARIES:
        target = folder / "tensorrt_bindings" / name
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(target), str(source)]
        subprocess.run(command, check=True)
    # The extension looks for its name where the full package would have it.
    package = folder / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    sys.path[:0] = [str(folder)]
    sys.modules.pop("tensorrt", None)
    import tensorrt

    return tensorrt


def stub(module: Any) -> str:
    """The text of the stub."""
    parts = [HEADER.format(version=module.__version__)]
    parts += [
        "\n".join(class_lines(name, getattr(module, name))) + "\n"
        for name in CLASSES
        if hasattr(module, name)
    ]
    functions = (  # of the module
        "get_plugin_registry",
        "get_builder_plugin_registry",
        "init_libnvinfer_plugins",
    )
    parts += [f"def {line(each, getattr(module, each))[4:]}\n" for each in functions]
    return "\n".join(parts)


def class_lines(name: str, cls: type, indent: str = "") -> Iterator[str]:
    """One class."""
    known = [base.__name__ for base in cls.__bases__ if base.__name__ in CLASSES]
    known += [BASES[name]] if name in BASES else []
    yield f"{indent}class {name}{'(' + ', '.join(known) + ')' if known else ''}:"
    inner = indent + "    "
    members = getattr(cls, "__members__", None)
    if members is not None:  # an enumeration
        yield f"{inner}__members__: ClassVar[dict[str, {cls.__qualname__}]]"
        yield f"{inner}name: str"
        yield f"{inner}value: int"
        yield from (f"{inner}{each}: ClassVar[{cls.__qualname__}]" for each in members)
        yield f"{inner}def __le__(self, other: object) -> bool: ..."
        return
    if name in ADDED:
        yield inner + ADDED[name]
    body = [text for each in sorted(vars(cls)) for text in member(name, cls, each, inner)]
    yield from body or [f"{inner}..."]


def member(owner: str, cls: type, name: str, indent: str) -> Iterator[str]:
    """One attribute, property, method or nested class."""
    found = vars(cls)[name]
    if name == "__init__":
        if "-> None" not in (found.__doc__ or ""):
            return
    elif LEFT_OUT.match(name):
        return
    if isinstance(found, type):
        yield from class_lines(name, found, indent)
    elif isinstance(found, property):
        documented = getattr(found.fget, "__doc__", None) or ""
        kind = typed(documented.split("->")[-1].strip()) if "->" in documented else "Any"
        yield f"{indent}{name}: {kind}"
    elif callable(found) or isinstance(found, staticmethod):
        yield from methods(owner, name, found, indent)
    else:
        yield f"{indent}{name}: ClassVar[{type(found).__qualname__}]"


def methods(owner: str, name: str, found: Any, indent: str) -> Iterator[str]:
    """One method, or each of its overloads."""
    if (owner, name) in CORRECTED:
        yield f"{indent}def {name}{CORRECTED[owner, name]}: ..."
        return
    document = (found.__doc__ or "").strip()
    overloads = re.findall(r"^\d+\. (\w+\(.*)$", document, flags=re.MULTILINE)
    for text in overloads or [document.splitlines()[0]]:
        if len(overloads) > 1:
            yield f"{indent}@overload"
        yield indent + signature(text)


def line(name: str, found: Any) -> str:
    return signature((found.__doc__ or f"{name}() -> Any").strip().splitlines()[0])


def signature(text: str) -> str:
    """``name(self: X, a: T = <D: 0>) -> R`` of pybind11 as Python."""
    name, rest = text.split("(", 1)
    arguments, _, result = rest.rpartition(") -> ")
    parts = [argument(each) for each in split(arguments)]
    return f"def {name}({', '.join(parts)}) -> {typed(result)}: ..."


def argument(text: str) -> str:
    if text.startswith(("*", "self")):
        return text.split(":")[0]
    name, _, kind = text.partition(": ")
    if keyword.iskeyword(name):
        name = f"__{name}"  # can be given by position only
    kind, default, _ = kind.partition(" = ")
    return f"{name}: {typed(kind, given=True)}{' = ...' if default else ''}"


def split(text: str) -> list[str]:
    """At the commas between arguments, not at those within brackets."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "[(<") - (char in "])>")
        if char == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [each for each in [*parts, text[start:].strip()] if each]


def typed(text: str, *, given: bool = False) -> str:
    """A type of pybind11 as Python; one that is not in the stub is Any."""
    text = re.sub(r"\w+_bindings\.\w+\.", "", text.strip())
    text = text.replace("typing.SupportsInt", "int").replace("typing.SupportsFloat", "float")
    text = text.replace("collections.abc.", "").replace("typing.Any", "Any")
    if given:
        text = re.sub(r"\bDims\b", "Dims | Sequence[int]", text)
    allowed = {*CLASSES, "int", "float", "str", "bytes", "bool", "None", "Any", "Sequence"}
    allowed |= {"list", "tuple", "dict", "Severity", "object"}
    names = set(re.findall(r"[A-Za-z_][\w.]*", text))
    return text if {n.split(".")[-1] for n in names} <= allowed and "<" not in text else "Any"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = stub(bindings(Path(sys.argv[1]), Path(scratch)))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", OUTPUT], check=True)
    print(OUTPUT, text.count("\n"), "lines")
