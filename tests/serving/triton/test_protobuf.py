"""numpy's types in Triton's words."""

from __future__ import annotations

import pytest

from lepton_compile.errors import ArtifactError
from lepton_compile.serving.triton.protobuf import data_type

pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "str"],
)
def test_each_type_is_one_of_the_protobufs(dtype: str) -> None:
    assert pb.DataType.Value(data_type(dtype)) > 0


def test_an_unknown_type_lists_the_known() -> None:
    with pytest.raises(ArtifactError) as caught:
        data_type("complex64")
    assert "float32" in caught.value.available
