"""The two TensorRTs, as data: what they are called and what they build for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["FLAVOURS", "RTX", "TRT", "Flavour"]


@dataclass(frozen=True)
class Flavour:
    """One TensorRT.

    Attributes:
        target: as recipes name it.
        title: as people know it.
        module: Python package of the builder.
        libraries: Python package that holds the shared libraries; empty where the module finds
            them by itself.
        package: pip package, whose version the engine requires.
        extra: of our own package; installs all that building and running need.
        capabilities: compute capabilities that it builds for without a GPU; empty means that it
            builds for the GPU it finds.
        dtypes: oldest compute capability that takes a data type, by its ONNX name; types that are
            not named go everywhere.
        suffix: of the install command, such as another package index.
    """

    target: str
    title: str
    module: str
    libraries: str
    package: str
    extra: str
    capabilities: tuple[str, ...] = ()
    dtypes: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'lepton-compile[{self.extra}]'{self.suffix}"


RTX = Flavour(
    target="trt-rtx",
    title="TensorRT-RTX",
    module="tensorrt_rtx",
    libraries="tensorrt_rtx_libs",
    package="tensorrt-rtx-cu13",
    extra="rtx",
    capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    dtypes={
        # The builder takes INT8 for 7.5, too; NVIDIA's table of that GPU has FP16 and FP32 only.
        "INT8": "8.0",
        "BFLOAT16": "8.0",
        "INT4": "8.0",
        "FLOAT8E4M3FN": "8.9",
        "FLOAT4E2M1": "12.0",
        "FLOAT8E8M0": "12.0",
    },
)

TRT = Flavour(
    target="trt",
    title="TensorRT",
    module="tensorrt",
    libraries="",
    package="tensorrt-cu13",
    extra="trt",
    dtypes={"FLOAT8E4M3FN": "8.9", "FLOAT4E2M1": "10.0", "FLOAT8E8M0": "10.0"},
    suffix=" --extra-index-url https://pypi.nvidia.com",
)

FLAVOURS = {flavour.target: flavour for flavour in (RTX, TRT)}
