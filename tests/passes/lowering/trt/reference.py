"""TensorRT's ops and the plugin's in standard ONNX, so that a lowered graph runs on onnxruntime.

``TRT_Attention`` is written down as TensorRT documents it, a form at a time, because a body cannot
ask which inputs it got. A node with an attribute or an input that TensorRT would silently drop has
no form here, and fails.
"""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir

_HEADER = '<domain: "{domain}", opset_import: ["" : 24]>'

# j <= i + length - sequence, where the length is that of the row or of the keys.
_LOWER_RIGHT = """
    axis0 = Constant <value_ints = [0]> ()
    axes = Constant <value_ints = [1, 2, 3]> ()
    axis1 = Constant <value_ints = [1]> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    s1 = Shape <start = 2, end = 3> (q)
    t1 = Shape <start = 2, end = 3> (k)
    s = Squeeze (s1, axis0)
    t = Squeeze (t1, axis0)
    rows = Range (zero, s, one)
    i = Unsqueeze (rows, axis1)
    j = Range (zero, t, one)
    from_end = Sub (lengths, s1)
    offset = Unsqueeze (from_end, axes)
    last = Add (i, offset)
    seen = LessOrEqual (j, last)
    none = Constant <value_float = 0.0> ()
    hidden = Constant <value_float = -30000.0> ()
    bias = Where (seen, none, hidden)
    y = Attention <scale = 1.0> (q, k, v, bias)
"""
_FORMS = {
    # onnxruntime does not broadcast the rows of a mask.
    "Masked": """Masked (q, k, v, mask) => (y) {
        one = Constant <value_ints = [1]> ()
        s = Shape <start = 2, end = 3> (q)
        shape = Concat <axis = 0> (one, one, s, one)
        bias = Expand (mask, shape)
        y = Attention <scale = 1.0> (q, k, v, bias) }""",
    "Free": "Free (q, k, v) => (y) { y = Attention <scale = 1.0> (q, k, v) }",
    "LowerRight": f"""LowerRight (q, k, v) => (y) {{
        lengths = Shape <start = 2, end = 3> (k)
        {_LOWER_RIGHT} }}""",
    "Ragged": f"""Ragged (q, k, v, kv_lengths) => (y) {{
        lengths = Cast <to = 7> (kv_lengths)
        {_LOWER_RIGHT} }}""",
}

_PLUGIN = """{name} <q_num_heads, kv_num_heads, head_dim, scale, softcap, window>
    (q, k, v, past_lengths, past_key, past_value) => (y, present_key, present_value) {{
    zero1 = Constant <value_ints = [0]> ()
    kv_heads = Constant <value_int = @kv_num_heads> ()
    axis0 = Constant <value_ints = [0]> ()
    heads = Unsqueeze (kv_heads, axis0)
    any = Constant <value_ints = [-1]> ()
    shape = Concat <axis = 0> (zero1, zero1, heads, any)
    k4 = Reshape (k, shape)
    v4 = Reshape (v, shape)
    k_heads = Transpose <perm = [0, 2, 1, 3]> (k4)
    v_heads = Transpose <perm = [0, 2, 1, 3]> (v4)
    at = Cast <to = 7> (past_lengths)
    {write}
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axis1 = Constant <value_ints = [1]> ()
    axes = Constant <value_ints = [1, 2, 3]> ()
    s1 = Shape <start = 1, end = 2> (q)
    t1 = Shape <start = 2, end = 3> (past_key)
    s = Squeeze (s1, axis0)
    t = Squeeze (t1, axis0)
    rows = Range (zero, s, one)
    i = Unsqueeze (rows, axis1)
    j = Range (zero, t, one)
    first = Unsqueeze (at, axes)
    own = Add (i, first)
    distance = Sub (own, j)
    past = GreaterOrEqual (distance, zero)
    window_size = Constant <value_int = @window> ()
    unlimited = Less (window_size, zero)
    close = Less (distance, window_size)
    near = Or (close, unlimited)
    seen = And (past, near)
    none = Constant <value_float = 0.0> ()
    hidden = Constant <value_float = -30000.0> ()
    bias = Where (seen, none, hidden)
    q_heads_count = Constant <value_int = @q_num_heads> ()
    q_heads1 = Unsqueeze (q_heads_count, axis0)
    q_shape = Concat <axis = 0> (zero1, zero1, q_heads1, any)
    q4 = Reshape (q, q_shape)
    q_heads = Transpose <perm = [0, 2, 1, 3]> (q4)
    y_heads = Attention <scale: float = @scale, softcap: float = @softcap>
        (q_heads, held_key, held_value, bias)
    y4 = Transpose <perm = [0, 2, 1, 3]> (y_heads)
    flat = Concat <axis = 0> (zero1, zero1, any)
    y = Reshape (y4, flat)
}}"""
_SCATTER = """present_key = TensorScatter <axis = -2, mode = "linear"> (past_key, {key}, at)
    present_value = TensorScatter <axis = -2, mode = "linear"> (past_value, {value}, at)"""
# The caches of each: what is written, and what the attention reads of it.
_CACHES = {
    "CachedAttention": _SCATTER.format(key="k_heads", value="v_heads")
    + """
    held_key = Identity (present_key)
    held_value = Identity (present_value)""",
    "CachedAttentionInt8": """most = Constant <value_float = 127.0> ()
    least = Neg (most)
    k_near = Round (k_heads)
    v_near = Round (v_heads)
    k_clipped = Clip (k_near, least, most)
    v_clipped = Clip (v_near, least, most)
    k_stored = Cast <to = 3> (k_clipped)
    v_stored = Cast <to = 3> (v_clipped)
    """
    + _SCATTER.format(key="k_stored", value="v_stored")
    + """
    held_key = Cast <to = 1> (present_key)
    held_value = Cast <to = 1> (present_value)""",
}


def executable(model: ir.Model) -> ir.Model:
    """A copy of a lowered graph with a body for each op that only TensorRT has."""
    copy = model.clone()
    graphs = [copy.graph, *(f.graph for f in copy.functions.values())]
    for graph in graphs:
        graph.opset_imports["trt"] = graph.opset_imports["lepton"] = 1
        for node in [n for n in graph if n.domain == "trt"]:
            _name_form(graph, node)
        for node in [n for n in graph if n.op_type == "Attention" and not n.domain]:
            node.attributes.pop("TRT_decomposable", None)
        for node in [n for n in graph if n.domain == "lepton" and _in_int8(n)]:
            node.op_type = "CachedAttentionInt8"
    plugins = [_PLUGIN.format(name=name, write=text) for name, text in _CACHES.items()]
    bodies = {f"{_HEADER.format(domain='trt')}\n{text}" for text in _FORMS.values()}
    for text in (*bodies, *(f"{_HEADER.format(domain='lepton')}\n{text}" for text in plugins)):
        function = ir.serde.deserialize_function(onnx.parser.parse_function(text))
        copy.functions[function.identifier()] = function
    return copy


def _in_int8(node: ir.Node) -> bool:
    past = node.inputs[4]
    return past is not None and past.dtype == ir.DataType.INT8


def _name_form(graph: ir.Graph, node: ir.Node) -> None:
    assert node.op_type == "TRT_Attention"
    assert set(node.attributes) <= {"TRT_decomposable", "causal_kind"}
    kind = node.attributes.get_string("causal_kind", "none")
    given = [i for i, v in enumerate(node.inputs) if v is not None]
    form = {
        ("none", (0, 1, 2)): "Free",
        ("none", (0, 1, 2, 3)): "Masked",
        ("lower_right", (0, 1, 2)): "LowerRight",
        ("lower_right", (0, 1, 2, 5)): "Ragged",
    }[kind, tuple(given)]
    new = ir.node(form, [node.inputs[i] for i in given], domain="trt")
    graph.insert_before(node, new)
    new.outputs[0].name, node.outputs[0].name = node.outputs[0].name, None
    ir.convenience.replace_all_uses_with(
        node.outputs[0], new.outputs[0], replace_graph_outputs=True
    )
    graph.remove(node, safe=True)
