"""Names, arguments and types of TensorRT 11.4.0.106, as its bindings register them.

Written by scripts/stubs/tensorrt.py. Classes that our code does not use are left out.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, overload

__version__: str

class Builder:
    def __init__(self, logger: ILogger) -> None: ...
    def build_engine_with_config(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> ICudaEngine: ...
    @overload
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory: ...
    @overload
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig, kernel_text: object
    ) -> IHostMemory: ...
    def build_serialized_network_to_stream(
        self, network: INetworkDefinition, config: IBuilderConfig, writer: IStreamWriter
    ) -> bool: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_network(self, flags: int = ...) -> INetworkDefinition: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    error_recorder: IErrorRecorder
    def get_plugin_registry(self) -> IPluginRegistry: ...
    gpu_allocator: Any
    def is_network_supported(self, network: INetworkDefinition, config: IBuilderConfig) -> bool: ...
    logger: ILogger
    max_DLA_batch_size: int
    max_threads: int
    num_DLA_cores: int
    def reset(self) -> None: ...

class BuilderFlag:
    __members__: ClassVar[dict[str, BuilderFlag]]
    name: str
    value: int
    DEBUG: ClassVar[BuilderFlag]
    GPU_FALLBACK: ClassVar[BuilderFlag]
    REFIT: ClassVar[BuilderFlag]
    DISABLE_TIMING_CACHE: ClassVar[BuilderFlag]
    EDITABLE_TIMING_CACHE: ClassVar[BuilderFlag]
    TF32: ClassVar[BuilderFlag]
    SPARSE_WEIGHTS: ClassVar[BuilderFlag]
    SAFETY_SCOPE: ClassVar[BuilderFlag]
    DIRECT_IO: ClassVar[BuilderFlag]
    VERSION_COMPATIBLE: ClassVar[BuilderFlag]
    EXCLUDE_LEAN_RUNTIME: ClassVar[BuilderFlag]
    ERROR_ON_TIMING_CACHE_MISS: ClassVar[BuilderFlag]
    DISABLE_COMPILATION_CACHE: ClassVar[BuilderFlag]
    STRIP_PLAN: ClassVar[BuilderFlag]
    REFIT_IDENTICAL: ClassVar[BuilderFlag]
    WEIGHT_STREAMING: ClassVar[BuilderFlag]
    REFIT_INDIVIDUAL: ClassVar[BuilderFlag]
    STRICT_NANS: ClassVar[BuilderFlag]
    MONITOR_MEMORY: ClassVar[BuilderFlag]
    DISTRIBUTIVE_INDEPENDENCE: ClassVar[BuilderFlag]
    def __le__(self, other: object) -> bool: ...

class CausalMaskKind:
    __members__: ClassVar[dict[str, CausalMaskKind]]
    name: str
    value: int
    NONE: ClassVar[CausalMaskKind]
    UPPER_LEFT: ClassVar[CausalMaskKind]
    LOWER_RIGHT: ClassVar[CausalMaskKind]
    def __le__(self, other: object) -> bool: ...

class DataType:
    __members__: ClassVar[dict[str, DataType]]
    name: str
    value: int
    FLOAT: ClassVar[DataType]
    HALF: ClassVar[DataType]
    BF16: ClassVar[DataType]
    INT8: ClassVar[DataType]
    INT32: ClassVar[DataType]
    INT64: ClassVar[DataType]
    BOOL: ClassVar[DataType]
    UINT8: ClassVar[DataType]
    FP8: ClassVar[DataType]
    INT4: ClassVar[DataType]
    FP4: ClassVar[DataType]
    E8M0: ClassVar[DataType]
    def __le__(self, other: object) -> bool: ...

class Dims(Sequence[int]):
    MAX_DIMS: int
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, shape: Sequence[int]) -> None: ...

class DimsExprs:
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: Sequence[IDimensionExpr]) -> None: ...
    @overload
    def __init__(self, arg0: int) -> None: ...

class DynamicPluginTensorDesc:
    def __init__(self) -> None: ...
    desc: PluginTensorDesc
    max: Dims
    min: Dims
    opt: Dims

class EngineInspector:
    error_recorder: IErrorRecorder
    execution_context: IExecutionContext
    def get_engine_information(self, format: LayerInformationFormat) -> str: ...
    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str: ...

class ErrorCode:
    __members__: ClassVar[dict[str, ErrorCode]]
    name: str
    value: int
    SUCCESS: ClassVar[ErrorCode]
    INTERNAL_ERROR: ClassVar[ErrorCode]
    MEM_ALLOC_FAILED: ClassVar[ErrorCode]
    MODEL_DESERIALIZE_FAILED: ClassVar[ErrorCode]
    INVALID_VALUE: ClassVar[ErrorCode]
    INVALID_GRAPH: ClassVar[ErrorCode]
    INVALID_NODE: ClassVar[ErrorCode]
    UNSUPPORTED_GRAPH: ClassVar[ErrorCode]
    UNSUPPORTED_NODE: ClassVar[ErrorCode]
    UNSUPPORTED_NODE_ATTR: ClassVar[ErrorCode]
    UNSUPPORTED_NODE_INPUT: ClassVar[ErrorCode]
    UNSUPPORTED_NODE_DATATYPE: ClassVar[ErrorCode]
    UNSUPPORTED_NODE_DYNAMIC: ClassVar[ErrorCode]
    UNSUPPORTED_NODE_SHAPE: ClassVar[ErrorCode]
    REFIT_FAILED: ClassVar[ErrorCode]
    def __le__(self, other: object) -> bool: ...

class ErrorCodeTRT:
    __members__: ClassVar[dict[str, ErrorCodeTRT]]
    name: str
    value: int
    SUCCESS: ClassVar[ErrorCodeTRT]
    UNSPECIFIED_ERROR: ClassVar[ErrorCodeTRT]
    INTERNAL_ERROR: ClassVar[ErrorCodeTRT]
    INVALID_ARGUMENT: ClassVar[ErrorCodeTRT]
    INVALID_CONFIG: ClassVar[ErrorCodeTRT]
    FAILED_ALLOCATION: ClassVar[ErrorCodeTRT]
    FAILED_INITIALIZATION: ClassVar[ErrorCodeTRT]
    FAILED_EXECUTION: ClassVar[ErrorCodeTRT]
    FAILED_COMPUTATION: ClassVar[ErrorCodeTRT]
    INVALID_STATE: ClassVar[ErrorCodeTRT]
    UNSUPPORTED_STATE: ClassVar[ErrorCodeTRT]
    def __le__(self, other: object) -> bool: ...

class ExecutionContextAllocationStrategy:
    __members__: ClassVar[dict[str, ExecutionContextAllocationStrategy]]
    name: str
    value: int
    STATIC: ClassVar[ExecutionContextAllocationStrategy]
    ON_PROFILE_CHANGE: ClassVar[ExecutionContextAllocationStrategy]
    USER_MANAGED: ClassVar[ExecutionContextAllocationStrategy]
    def __le__(self, other: object) -> bool: ...

class HardwareCompatibilityLevel:
    __members__: ClassVar[dict[str, HardwareCompatibilityLevel]]
    name: str
    value: int
    NONE: ClassVar[HardwareCompatibilityLevel]
    AMPERE_PLUS: ClassVar[HardwareCompatibilityLevel]
    SAME_COMPUTE_CAPABILITY: ClassVar[HardwareCompatibilityLevel]
    def __le__(self, other: object) -> bool: ...

class IAttention:
    causal: bool
    causal_kind: CausalMaskKind
    decomposable: bool
    def get_input(self, index: int) -> ITensor: ...
    def get_output(self, index: int) -> ITensor: ...
    key_value_form: Any
    key_value_lengths: ITensor
    mask: ITensor
    metadata: str
    name: str
    norm_op: Any
    normalization_quantize_scale: ITensor
    normalization_quantize_to_type: DataType
    num_inputs: int
    num_outputs: int
    num_ranks: int
    query_form: Any
    query_lengths: ITensor
    def set_input(self, index: int, tensor: ITensor) -> bool: ...

class IBuilderConfig:
    DLA_core: int
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    all_build_routes: str
    avg_timing_iterations: int
    build_route: str
    builder_optimization_level: int
    def can_run_on_DLA(self, layer: ILayer) -> bool: ...
    def clear_flag(self, flag: BuilderFlag) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache: ...
    default_device_type: Any
    engine_capability: Any
    flags: int
    def get_device_type(self, layer: ILayer) -> Any: ...
    def get_flag(self, flag: BuilderFlag) -> bool: ...
    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int: ...
    def get_preview_feature(self, feature: PreviewFeature) -> bool: ...
    def get_tactic_sources(self) -> int: ...
    def get_timing_cache(self) -> ITimingCache: ...
    hardware_compatibility_level: HardwareCompatibilityLevel
    def is_device_type_set(self, layer: ILayer) -> bool: ...
    l2_limit_for_tiling: int
    max_aux_streams: int
    max_num_tactics: int
    num_optimization_profiles: int
    plugins_to_serialize: list[str]
    profile_stream: int
    profiling_verbosity: ProfilingVerbosity
    progress_monitor: IProgressMonitor
    remote_auto_tuning_config: str
    def reset(self) -> None: ...
    def reset_device_type(self, layer: ILayer) -> None: ...
    runtime_platform: Any
    def set_device_type(self, layer: ILayer, device_type: Any) -> None: ...
    def set_flag(self, flag: BuilderFlag) -> None: ...
    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None: ...
    def set_preview_feature(self, feature: PreviewFeature, enable: bool) -> None: ...
    def set_tactic_sources(self, tactic_sources: int) -> bool: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    tiling_optimization_level: Any

class ICudaEngine:
    def create_engine_inspector(self) -> EngineInspector: ...
    @overload
    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ...
    ) -> IExecutionContext: ...
    @overload
    def create_execution_context(
        self, runtime_config: IRuntimeConfig = ...
    ) -> IExecutionContext: ...
    def create_runtime_config(self) -> IRuntimeConfig: ...
    def create_serialization_config(self) -> Any: ...
    device_memory_size_v2: int
    engine_capability: Any
    error_recorder: IErrorRecorder
    def get_aliased_input_tensor(self, name: str) -> str: ...
    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int: ...
    def get_engine_stat(self, stat: Any = ...) -> int: ...
    @overload
    def get_tensor_bytes_per_component(self, name: str) -> int: ...
    @overload
    def get_tensor_bytes_per_component(self, name: str, profile_index: int) -> int: ...
    @overload
    def get_tensor_components_per_element(self, name: str) -> int: ...
    @overload
    def get_tensor_components_per_element(self, name: str, profile_index: int) -> int: ...
    def get_tensor_dtype(self, name: str) -> DataType: ...
    @overload
    def get_tensor_format(self, name: str) -> TensorFormat: ...
    @overload
    def get_tensor_format(self, name: str, profile_index: int) -> TensorFormat: ...
    @overload
    def get_tensor_format_desc(self, name: str) -> str: ...
    @overload
    def get_tensor_format_desc(self, name: str, profile_index: int) -> str: ...
    def get_tensor_location(self, name: str) -> TensorLocation: ...
    def get_tensor_mode(self, name: str) -> TensorIOMode: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]: ...
    def get_tensor_profile_values(self, name: int, profile_index: str) -> list[list[int]]: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    @overload
    def get_tensor_vectorized_dim(self, name: str) -> int: ...
    @overload
    def get_tensor_vectorized_dim(self, name: str, profile_index: int) -> int: ...
    def get_weight_streaming_automatic_budget(self) -> int: ...
    hardware_compatibility_level: Any
    def is_debug_tensor(self, name: str) -> bool: ...
    def is_shape_inference_io(self, name: str) -> bool: ...
    name: str
    num_aux_streams: int
    num_io_tensors: int
    num_layers: int
    num_optimization_profiles: int
    profiling_verbosity: Any
    refittable: bool
    def serialize(self) -> IHostMemory: ...
    def serialize_with_config(self, arg0: Any) -> IHostMemory: ...
    streamable_weights_size: int
    tactic_sources: int
    weight_streaming_budget_v2: int
    weight_streaming_scratch_memory_size: int

class IDimensionExpr:
    def get_constant_value(self) -> int: ...
    def is_constant(self) -> bool: ...
    def is_size_tensor(self) -> bool: ...

class IErrorRecorder:
    MAX_DESC_LENGTH: int
    def __init__(self) -> None: ...
    def clear(self) -> None: ...
    def get_error_code(self, arg0: int) -> ErrorCodeTRT: ...
    def get_error_desc(self, arg0: int) -> str: ...
    def has_overflowed(self) -> bool: ...
    def num_errors(self) -> int: ...
    def report_error(self, arg0: ErrorCodeTRT, arg1: str) -> bool: ...

class IExecutionContext:
    active_optimization_profile: int
    all_binding_shapes_specified: bool
    debug_sync: bool
    device_memory: Any
    engine: Any
    enqueue_emits_profile: bool
    error_recorder: IErrorRecorder
    def execute_async_v3(self, stream_handle: int) -> bool: ...
    def execute_v2(self, bindings: Sequence[int]) -> bool: ...
    def get_debug_listener(self) -> Any: ...
    def get_debug_state(self, name: str) -> bool: ...
    def get_input_consumed_event(self) -> int: ...
    def get_max_output_size(self, name: str) -> int: ...
    def get_output_allocator(self, name: str) -> Any: ...
    def get_runtime_config(self) -> IRuntimeConfig: ...
    def get_tensor_address(self, name: str) -> int: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_tensor_strides(self, name: str) -> Dims: ...
    def infer_shapes(self) -> list[str]: ...
    name: str
    nvtx_verbosity: Any
    persistent_cache_limit: int
    profiler: Any
    def report_to_profiler(self) -> bool: ...
    def set_all_tensors_debug_state(self, flag: bool) -> bool: ...
    def set_aux_streams(self, aux_streams: Sequence[int]) -> None: ...
    def set_communicator(self, communicator: Any) -> bool: ...
    def set_debug_listener(self, listener: Any) -> bool: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_input_consumed_event(self, event: int) -> bool: ...
    @overload
    def set_input_shape(self, name: str, shape: tuple) -> bool: ...
    @overload
    def set_input_shape(self, name: str, shape: list) -> bool: ...
    @overload
    def set_input_shape(self, name: str, shape: Dims | Sequence[int]) -> bool: ...
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_output_allocator(self, name: str, output_allocator: Any) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def set_tensor_debug_state(self, name: str, flag: bool) -> bool: ...
    temporary_allocator: Any
    unfused_tensors_debug_state: bool
    def update_device_memory_size_for_shapes(self) -> int: ...

class IExprBuilder:
    def __init__(self) -> None: ...
    def constant(self, arg0: int) -> IDimensionExpr: ...
    def declare_size_tensor(
        self, arg0: int, arg1: IDimensionExpr, arg2: IDimensionExpr
    ) -> IDimensionExpr: ...
    def operation(
        self, arg0: Any, arg1: IDimensionExpr, arg2: IDimensionExpr
    ) -> IDimensionExpr: ...

class IHostMemory:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    dtype: DataType
    nbytes: int

class IKVCacheUpdateLayer(ILayer):
    cache_mode: Any
    def set_input(self, index: int, tensor: ITensor) -> None: ...
    update_form: Any
    update_lengths: ITensor

class ILayer:
    def get_input(self, index: int) -> ITensor: ...
    def get_output(self, index: int) -> ITensor: ...
    def get_output_type(self, index: int) -> DataType: ...
    metadata: str
    name: str
    num_inputs: int
    num_outputs: int
    num_ranks: int
    def set_input(self, index: int, tensor: ITensor) -> None: ...
    type: LayerType

class ILogger:
    ERROR: ClassVar[ILogger.Severity]
    INFO: ClassVar[ILogger.Severity]
    INTERNAL_ERROR: ClassVar[ILogger.Severity]
    class Severity:
        __members__: ClassVar[dict[str, ILogger.Severity]]
        name: str
        value: int
        INTERNAL_ERROR: ClassVar[ILogger.Severity]
        ERROR: ClassVar[ILogger.Severity]
        WARNING: ClassVar[ILogger.Severity]
        INFO: ClassVar[ILogger.Severity]
        VERBOSE: ClassVar[ILogger.Severity]
        def __le__(self, other: object) -> bool: ...

    VERBOSE: ClassVar[ILogger.Severity]
    WARNING: ClassVar[ILogger.Severity]
    def __init__(self) -> None: ...
    def log(self, severity: ILogger.Severity, msg: str) -> None: ...

class INetworkDefinition:
    @overload
    def add_plugin(self, tuple: tuple) -> Any: ...
    @overload
    def add_plugin(self, func: Any) -> Any: ...
    @overload
    def add_plugin(self, func: Any, aot: bool) -> Any: ...
    def add_plugin_v2(self, inputs: Sequence[ITensor], plugin: Any) -> Any: ...
    def add_plugin_v3(
        self, inputs: Sequence[ITensor], shape_inputs: Sequence[ITensor], plugin: IPluginV3
    ) -> Any: ...
    def are_weights_marked_refittable(self, name: str) -> bool: ...
    builder: Any
    error_recorder: Any
    flags: int
    def get_flag(self, flag: Any) -> bool: ...
    def get_input(self, index: int) -> ITensor: ...
    def get_layer(self, index: int) -> ILayer: ...
    def get_output(self, index: int) -> ITensor: ...
    has_implicit_batch_dimension: bool
    def is_debug_tensor(self, tensor: ITensor) -> bool: ...
    def mark_debug(self, tensor: ITensor) -> bool: ...
    def mark_output(self, tensor: ITensor) -> None: ...
    def mark_output_for_shapes(self, tensor: ITensor) -> bool: ...
    def mark_unfused_tensors_as_debug_tensors(self) -> bool: ...
    def mark_weights_refittable(self, name: str) -> bool: ...
    name: str
    num_inputs: int
    num_layers: int
    num_outputs: int
    def remove_tensor(self, tensor: ITensor) -> None: ...
    def set_weights_name(self, weights: Any, name: str) -> bool: ...
    def unmark_debug(self, tensor: ITensor) -> bool: ...
    def unmark_output(self, tensor: ITensor) -> None: ...
    def unmark_output_for_shapes(self, tensor: ITensor) -> bool: ...
    def unmark_unfused_tensors_as_debug_tensors(self) -> bool: ...
    def unmark_weights_refittable(self, name: str) -> bool: ...

class IOptimizationProfile:
    extra_memory_target: float
    def get_shape(self, input: str) -> list[Dims]: ...
    def get_shape_input(self, input: str) -> list[list[int]]: ...
    profile_stream: int
    def set_shape(
        self,
        input: str,
        min: Dims | Sequence[int],
        opt: Dims | Sequence[int],
        max: Dims | Sequence[int],
    ) -> None: ...
    def set_shape_input(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None: ...

class IPluginCapability(IVersionedInterface): ...
class IPluginCreatorInterface(IVersionedInterface): ...

class IPluginCreatorV3One(IPluginCreatorInterface, IVersionedInterface):
    def __init__(self) -> None: ...
    def create_plugin(self, name: str, field_collection: Any, phase: Any) -> IPluginV3: ...
    field_names: Any
    name: str
    plugin_namespace: str
    plugin_version: str

class IPluginRegistry:
    def acquire_plugin_resource(self, key: str, resource: Any) -> Any: ...
    all_creators: list[object]
    all_creators_recursive: list[object]
    @overload
    def deregister_creator(self, creator: IPluginCreatorInterface) -> bool: ...
    @overload
    def deregister_creator(self, creator: IPluginCreatorInterface) -> bool: ...
    def deregister_library(self, handle: Any) -> None: ...
    error_recorder: Any
    def get_creator(self, type: str, version: str, plugin_namespace: str = ...) -> object: ...
    def load_library(self, plugin_path: str) -> Any: ...
    parent_search_enabled: bool
    @overload
    def register_creator(
        self, creator: IPluginCreatorInterface, plugin_namespace: str = ...
    ) -> bool: ...
    @overload
    def register_creator(
        self, creator: IPluginCreatorInterface, plugin_namespace: str = ...
    ) -> bool: ...
    def release_plugin_resource(self, key: str) -> int: ...

class IPluginResourceContext:
    error_recorder: Any
    gpu_allocator: Any

class IPluginV3(IVersionedInterface):
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: IPluginV3) -> None: ...
    def clone(self) -> IPluginV3: ...
    def destroy(self) -> None: ...
    def get_capability_interface(self, type: Any) -> object: ...

class IPluginV3OneBuild(IPluginCapability, IVersionedInterface):
    DEFAULT_FORMAT_COMBINATION_LIMIT: int
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: IPluginV3OneBuild) -> None: ...
    def configure_plugin(
        self, __in: Sequence[DynamicPluginTensorDesc], out: Sequence[DynamicPluginTensorDesc]
    ) -> None: ...
    format_combination_limit: int
    def get_output_data_types(self, input_types: Sequence[DataType]) -> list[DataType]: ...
    def get_output_shapes(
        self,
        inputs: Sequence[DimsExprs],
        shape_inputs: Sequence[DimsExprs],
        expr_builder: IExprBuilder,
    ) -> list[DimsExprs]: ...
    def get_valid_tactics(self) -> list[int]: ...
    def get_workspace_size(
        self, __in: Sequence[DynamicPluginTensorDesc], out: Sequence[DynamicPluginTensorDesc]
    ) -> int: ...
    metadata_string: str
    num_outputs: int
    def supports_format_combination(
        self, pos: int, in_out: Sequence[DynamicPluginTensorDesc], num_inputs: int
    ) -> bool: ...
    timing_cache_id: str

class IPluginV3OneBuildV2(IPluginV3OneBuild, IPluginCapability, IVersionedInterface):
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: IPluginV3OneBuildV2) -> None: ...
    def get_aliased_input(self) -> int: ...

class IPluginV3OneCore(IPluginCapability, IVersionedInterface):
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: IPluginV3OneCore) -> None: ...
    plugin_name: str
    plugin_namespace: str
    plugin_version: str

class IPluginV3OneRuntime(IPluginCapability, IVersionedInterface):
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: IPluginV3OneRuntime) -> None: ...
    def attach_to_context(self, resource_context: Any) -> IPluginV3: ...
    def enqueue(
        self,
        input_desc: Sequence[PluginTensorDesc],
        output_desc: Sequence[PluginTensorDesc],
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None: ...
    def get_fields_to_serialize(self) -> Any: ...
    def on_shape_change(
        self, __in: Sequence[PluginTensorDesc], out: Sequence[PluginTensorDesc]
    ) -> None: ...
    def set_tactic(self, tactic: int) -> None: ...

class IProgressMonitor:
    def __init__(self) -> None: ...
    def phase_finish(self, phase_name: str) -> None: ...
    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...

class IRuntimeConfig:
    def get_execution_context_allocation_strategy(self) -> ExecutionContextAllocationStrategy: ...
    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy = ...
    ) -> None: ...

class IStreamReaderV2:
    def __init__(self) -> None: ...
    def read(self, destination: Any, num_bytes: int, stream: int) -> int: ...
    def seek(self, offset: int, where: Any) -> bool: ...

class IStreamWriter:
    def __init__(self) -> None: ...
    def write(self, data: bytes) -> int: ...

class ITensor:
    allowed_formats: int
    broadcast_across_batch: bool
    dtype: DataType
    def get_dimension_name(self, index: int) -> str: ...
    is_execution_tensor: bool
    is_network_input: bool
    is_network_output: bool
    is_shape_tensor: bool
    location: Any
    name: str
    def set_dimension_name(self, index: int, name: str) -> None: ...
    shape: Dims

class ITimingCache:
    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def query(self, key: Any) -> Any: ...
    def queryKeys(self) -> Any: ...
    def reset(self) -> bool: ...
    def serialize(self) -> IHostMemory: ...
    def update(self, key: Any, value: Any) -> bool: ...

class IVersionedInterface:
    api_language: Any
    interface_info: Any

class KernelLaunchParams:
    block_x: Any
    block_y: Any
    block_z: Any
    grid_x: Any
    grid_y: Any
    grid_z: Any
    shared_mem: Any

class LayerInformationFormat:
    __members__: ClassVar[dict[str, LayerInformationFormat]]
    name: str
    value: int
    ONELINE: ClassVar[LayerInformationFormat]
    JSON: ClassVar[LayerInformationFormat]
    def __le__(self, other: object) -> bool: ...

class LayerType:
    __members__: ClassVar[dict[str, LayerType]]
    name: str
    value: int
    CONVOLUTION: ClassVar[LayerType]
    GRID_SAMPLE: ClassVar[LayerType]
    NMS: ClassVar[LayerType]
    ACTIVATION: ClassVar[LayerType]
    POOLING: ClassVar[LayerType]
    LRN: ClassVar[LayerType]
    SCALE: ClassVar[LayerType]
    SOFTMAX: ClassVar[LayerType]
    DECONVOLUTION: ClassVar[LayerType]
    CONCATENATION: ClassVar[LayerType]
    ELEMENTWISE: ClassVar[LayerType]
    PLUGIN: ClassVar[LayerType]
    UNARY: ClassVar[LayerType]
    PADDING: ClassVar[LayerType]
    SHUFFLE: ClassVar[LayerType]
    REDUCE: ClassVar[LayerType]
    TOPK: ClassVar[LayerType]
    GATHER: ClassVar[LayerType]
    MATRIX_MULTIPLY: ClassVar[LayerType]
    RAGGED_SOFTMAX: ClassVar[LayerType]
    CONSTANT: ClassVar[LayerType]
    IDENTITY: ClassVar[LayerType]
    CAST: ClassVar[LayerType]
    PLUGIN_V2: ClassVar[LayerType]
    SLICE: ClassVar[LayerType]
    SHAPE: ClassVar[LayerType]
    PARAMETRIC_RELU: ClassVar[LayerType]
    RESIZE: ClassVar[LayerType]
    TRIP_LIMIT: ClassVar[LayerType]
    RECURRENCE: ClassVar[LayerType]
    ITERATOR: ClassVar[LayerType]
    LOOP_OUTPUT: ClassVar[LayerType]
    SELECT: ClassVar[LayerType]
    ASSERTION: ClassVar[LayerType]
    FILL: ClassVar[LayerType]
    QUANTIZE: ClassVar[LayerType]
    DEQUANTIZE: ClassVar[LayerType]
    CONDITION: ClassVar[LayerType]
    CONDITIONAL_INPUT: ClassVar[LayerType]
    CONDITIONAL_OUTPUT: ClassVar[LayerType]
    SCATTER: ClassVar[LayerType]
    EINSUM: ClassVar[LayerType]
    ONE_HOT: ClassVar[LayerType]
    NON_ZERO: ClassVar[LayerType]
    REVERSE_SEQUENCE: ClassVar[LayerType]
    NORMALIZATION: ClassVar[LayerType]
    PLUGIN_V3: ClassVar[LayerType]
    SQUEEZE: ClassVar[LayerType]
    UNSQUEEZE: ClassVar[LayerType]
    CUMULATIVE: ClassVar[LayerType]
    DYNAMIC_QUANTIZE: ClassVar[LayerType]
    ATTENTION_INPUT: ClassVar[LayerType]
    ATTENTION_OUTPUT: ClassVar[LayerType]
    ROTARY_EMBEDDING: ClassVar[LayerType]
    KV_CACHE_UPDATE: ClassVar[LayerType]
    MOE: ClassVar[LayerType]
    DIST_COLLECTIVE: ClassVar[LayerType]
    def __le__(self, other: object) -> bool: ...

class Logger(ILogger):
    ERROR: ClassVar[ILogger.Severity]
    INFO: ClassVar[ILogger.Severity]
    INTERNAL_ERROR: ClassVar[ILogger.Severity]
    class Severity:
        __members__: ClassVar[dict[str, ILogger.Severity]]
        name: str
        value: int
        INTERNAL_ERROR: ClassVar[ILogger.Severity]
        ERROR: ClassVar[ILogger.Severity]
        WARNING: ClassVar[ILogger.Severity]
        INFO: ClassVar[ILogger.Severity]
        VERBOSE: ClassVar[ILogger.Severity]
        def __le__(self, other: object) -> bool: ...

    VERBOSE: ClassVar[ILogger.Severity]
    WARNING: ClassVar[ILogger.Severity]
    def __init__(self, min_severity: ILogger.Severity = ...) -> None: ...
    def log(self, severity: ILogger.Severity, msg: str) -> None: ...
    min_severity: ILogger.Severity

class MemoryPoolType:
    __members__: ClassVar[dict[str, MemoryPoolType]]
    name: str
    value: int
    WORKSPACE: ClassVar[MemoryPoolType]
    DLA_MANAGED_SRAM: ClassVar[MemoryPoolType]
    DLA_LOCAL_DRAM: ClassVar[MemoryPoolType]
    DLA_GLOBAL_DRAM: ClassVar[MemoryPoolType]
    TACTIC_DRAM: ClassVar[MemoryPoolType]
    TACTIC_SHARED_MEMORY: ClassVar[MemoryPoolType]
    def __le__(self, other: object) -> bool: ...

class NetworkDefinitionCreationFlag:
    __members__: ClassVar[dict[str, NetworkDefinitionCreationFlag]]
    name: str
    value: int
    STRONGLY_TYPED: ClassVar[NetworkDefinitionCreationFlag]
    PREFER_AOT_PYTHON_PLUGINS: ClassVar[NetworkDefinitionCreationFlag]
    PREFER_JIT_PYTHON_PLUGINS: ClassVar[NetworkDefinitionCreationFlag]
    def __le__(self, other: object) -> bool: ...

class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None: ...
    def clear_errors(self) -> None: ...
    def clear_flag(self, flag: Any) -> None: ...
    flags: int
    def get_error(self, index: int) -> Any: ...
    def get_flag(self, flag: Any) -> bool: ...
    def get_layer_output_tensor(self, name: str, i: int) -> ITensor: ...
    def get_subgraph_nodes(self, index: int) -> list: ...
    def get_used_vc_plugin_libraries(self) -> list[str]: ...
    def is_subgraph_supported(self, index: int) -> bool: ...
    def load_initializer(self, name: str, data: int, size: int) -> bool: ...
    def load_model_proto(self, model: Any, path: str = ...) -> bool: ...
    num_errors: int
    num_subgraphs: int
    def parse(self, model: Any, path: str = ...) -> bool: ...
    def parse_from_file(self, model: str) -> bool: ...
    def parse_model_proto(self) -> bool: ...
    def set_builder_config(self, builder_config: IBuilderConfig) -> bool: ...
    def set_flag(self, flag: Any) -> None: ...
    def supports_model_v2(self, model: Any, path: str = ...) -> bool: ...
    def supports_operator(self, op_name: str) -> bool: ...

class OnnxParserFlag:
    __members__: ClassVar[dict[str, OnnxParserFlag]]
    name: str
    value: int
    NATIVE_INSTANCENORM: ClassVar[OnnxParserFlag]
    ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA: ClassVar[OnnxParserFlag]
    REPORT_CAPABILITY_DLA: ClassVar[OnnxParserFlag]
    ENABLE_PLUGIN_OVERRIDE: ClassVar[OnnxParserFlag]
    ADJUST_FOR_DLA: ClassVar[OnnxParserFlag]
    def __le__(self, other: object) -> bool: ...

class ParserError:
    def code(self) -> ErrorCode: ...
    def desc(self) -> str: ...
    def file(self) -> str: ...
    def func(self) -> str: ...
    def line(self) -> int: ...
    def local_function_stack(self) -> list[str]: ...
    def local_function_stack_size(self) -> int: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...

class PluginCapabilityType:
    __members__: ClassVar[dict[str, PluginCapabilityType]]
    name: str
    value: int
    CORE: ClassVar[PluginCapabilityType]
    BUILD: ClassVar[PluginCapabilityType]
    RUNTIME: ClassVar[PluginCapabilityType]
    def __le__(self, other: object) -> bool: ...

class PluginField:
    @overload
    def __init__(self, name: Any = ...) -> None: ...
    @overload
    def __init__(self, name: Any, data: Any, type: PluginFieldType = ...) -> None: ...
    data: Any
    name: str
    size: int
    type: PluginFieldType

class PluginFieldCollection:
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, arg0: PluginFieldCollection) -> None: ...
    @overload
    def __init__(self, arg0: Any) -> None: ...
    def append(self, x: Any) -> None: ...
    def clear(self) -> None: ...
    @overload
    def extend(self, L: PluginFieldCollection) -> None: ...
    @overload
    def extend(self, L: Any) -> None: ...
    def insert(self, i: int, x: Any) -> None: ...
    @overload
    def pop(self) -> Any: ...
    @overload
    def pop(self, i: int) -> Any: ...

class PluginFieldType:
    __members__: ClassVar[dict[str, PluginFieldType]]
    name: str
    value: int
    FLOAT16: ClassVar[PluginFieldType]
    FLOAT32: ClassVar[PluginFieldType]
    FLOAT64: ClassVar[PluginFieldType]
    INT8: ClassVar[PluginFieldType]
    INT16: ClassVar[PluginFieldType]
    INT32: ClassVar[PluginFieldType]
    CHAR: ClassVar[PluginFieldType]
    DIMS: ClassVar[PluginFieldType]
    UNKNOWN: ClassVar[PluginFieldType]
    BF16: ClassVar[PluginFieldType]
    INT64: ClassVar[PluginFieldType]
    FP8: ClassVar[PluginFieldType]
    INT4: ClassVar[PluginFieldType]
    FP4: ClassVar[PluginFieldType]
    def __le__(self, other: object) -> bool: ...

class PluginTensorDesc:
    def __init__(self) -> None: ...
    dims: Dims
    format: Any
    scale: float
    type: DataType

class PreviewFeature:
    __members__: ClassVar[dict[str, PreviewFeature]]
    name: str
    value: int
    ALIASED_PLUGIN_IO_10_03: ClassVar[PreviewFeature]
    RUNTIME_ACTIVATION_RESIZE_10_10: ClassVar[PreviewFeature]
    def __le__(self, other: object) -> bool: ...

class ProfilingVerbosity:
    __members__: ClassVar[dict[str, ProfilingVerbosity]]
    name: str
    value: int
    LAYER_NAMES_ONLY: ClassVar[ProfilingVerbosity]
    DETAILED: ClassVar[ProfilingVerbosity]
    NONE: ClassVar[ProfilingVerbosity]
    def __le__(self, other: object) -> bool: ...

class Runtime:
    DLA_core: int
    def __init__(self, logger: ILogger) -> None: ...
    @overload
    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine: ...
    @overload
    def deserialize_cuda_engine(self, stream_reader_v2: IStreamReaderV2) -> ICudaEngine: ...
    dla_workspace_allocation_strategy: Any
    engine_host_code_allowed: bool
    error_recorder: IErrorRecorder
    def get_plugin_registry(self) -> IPluginRegistry: ...
    gpu_allocator: Any
    def load_runtime(self, path: str) -> Runtime: ...
    logger: ILogger
    max_threads: int
    num_DLA_cores: int
    tempfile_control_flags: int
    temporary_directory: str

class SerializationFlag:
    __members__: ClassVar[dict[str, SerializationFlag]]
    name: str
    value: int
    EXCLUDE_WEIGHTS: ClassVar[SerializationFlag]
    EXCLUDE_LEAN_RUNTIME: ClassVar[SerializationFlag]
    INCLUDE_REFIT: ClassVar[SerializationFlag]
    def __le__(self, other: object) -> bool: ...

class TensorFormat:
    __members__: ClassVar[dict[str, TensorFormat]]
    name: str
    value: int
    LINEAR: ClassVar[TensorFormat]
    CHW2: ClassVar[TensorFormat]
    HWC8: ClassVar[TensorFormat]
    CHW4: ClassVar[TensorFormat]
    CHW16: ClassVar[TensorFormat]
    CHW32: ClassVar[TensorFormat]
    DHWC8: ClassVar[TensorFormat]
    CDHW32: ClassVar[TensorFormat]
    HWC: ClassVar[TensorFormat]
    DLA_LINEAR: ClassVar[TensorFormat]
    DLA_HWC4: ClassVar[TensorFormat]
    HWC16: ClassVar[TensorFormat]
    DHWC: ClassVar[TensorFormat]
    def __le__(self, other: object) -> bool: ...

class TensorIOMode:
    __members__: ClassVar[dict[str, TensorIOMode]]
    name: str
    value: int
    NONE: ClassVar[TensorIOMode]
    INPUT: ClassVar[TensorIOMode]
    OUTPUT: ClassVar[TensorIOMode]
    def __le__(self, other: object) -> bool: ...

class TensorLocation:
    __members__: ClassVar[dict[str, TensorLocation]]
    name: str
    value: int
    DEVICE: ClassVar[TensorLocation]
    HOST: ClassVar[TensorLocation]
    def __le__(self, other: object) -> bool: ...

class TensorRTPhase:
    __members__: ClassVar[dict[str, TensorRTPhase]]
    name: str
    value: int
    BUILD: ClassVar[TensorRTPhase]
    RUNTIME: ClassVar[TensorRTPhase]
    def __le__(self, other: object) -> bool: ...

def get_plugin_registry() -> Any: ...
def get_builder_plugin_registry(arg0: Any) -> IPluginRegistry: ...
def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool: ...
