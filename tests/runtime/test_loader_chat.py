"""Chat templates: the same text as transformers makes, and refusals in place of tracebacks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer

from lepton_compile.runtime import LoaderError, load
from tests.runtime import tiny

LLAMA = """{{- bos_token }}
{%- if tools is not none and tools is defined %}{{- "tools" }}{%- endif %}
{%- if strftime_now is defined %}{%- set today = strftime_now("%d %b %Y") %}
{%- else %}{%- set today = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\n" }}
{{- "Today Date: " + today + "\n\n" }}
{{- system + "<|eot|>" }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
"""
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\n# Tools' }}
    {%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if message.role == "user" and not ns.found %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
        {%- set ns.found = true %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if loop.index0 > ns.last %}{%- break %}{%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- if message.tool_calls %}{{- message.tool_calls | tojson }}{%- endif %}
    {%- if message.extra is defined %}{{- message.extra | tojson(indent=2) }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {{ message['content'] | trim }}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""
SMOLLM = """{%- set mode = "think" -%}
{%- for message in messages -%}
    {%- if message.role == "assistant" -%}
        {%- generation -%}
        {%- set mode = "inside" -%}
        {{- '<|im_start|>assistant\n' + message.content + '<|im_end|>\n' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- '<|im_start|>' + message.role + ' (' + mode + ')\n' + message.content + '\n' -}}
    {%- endif -%}
{%- endfor -%}
    {% if add_generation_prompt %}
    <|im_start|>assistant {{ add_bos_token is defined }}
    {% endif %}
"""
TEMPLATES = {"llama": LLAMA, "qwen": QWEN, "gemma": GEMMA, "smollm": SMOLLM}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": ' Grüße & <b>"mehr"</b> '}],
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "w5"},
        {"role": "assistant", "content": "w6"},
        {"role": "user", "content": "it's ünïcode", "extra": {"b": "<ä>", "a": [1, None, True]}},
    ],
    "calls": [
        {"role": "user", "content": "w5", "tool_calls": [{"name": "f", "arguments": {"x": "é<'"}}]},
        {"role": "assistant", "content": ""},
    ],
}


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_is_the_one_of_transformers(template: str, chat: str, tmp_path: Path) -> None:
    made = tiny.decoder(tmp_path / "chat", template=TEMPLATES[template])
    config = json.loads((made.path / "tokenizer_config.json").read_text("utf-8"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny.tokenizer_json("words")),
        bos_token=config["bos_token"]["content"],
        eos_token=config["eos_token"],
    )
    expected = tokenizer.apply_chat_template(
        CHATS[chat],
        chat_template=TEMPLATES[template],
        tokenize=False,
        add_generation_prompt=True,
    )
    with load(made.path, threads=1) as model:
        assert model.chat_text(CHATS[chat]) == expected
    assert str(CHATS[chat][-1]["content"]).strip() in expected


ASKING = (
    "{% if tools %}{{ tools | tojson }} {% endif %}{{ messages[-1].content }}"
    "{% if enable_thinking is defined and not enable_thinking %} w4{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "w9", "parameters": {"type": "object"}}}


def test_what_else_a_template_asks_for(tmp_path: Path) -> None:
    made = tiny.decoder(tmp_path / "chat", template=ASKING)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny.tokenizer_json("words"))
    )
    named = {"tools": [TOOL], "enable_thinking": False}
    expected = tokenizer.apply_chat_template(
        CHATS["one"], chat_template=ASKING, tokenize=False, add_generation_prompt=True, **named
    )
    with load(made.path, threads=1) as model:
        assert model.chat_text(CHATS["one"], **named) == expected
        ids = tokenizer.encode(expected, add_special_tokens=False)
        assert model.encode(CHATS["one"], chat=named) == ids
        assert model.encode(CHATS["one"][-1]["content"], chat=named) == ids
        assert model.encode(CHATS["one"], chat={}) == model.encode(CHATS["one"], chat=True) != ids
        together = model.generate([CHATS["one"]], chat=named, max_new_tokens=3)
        assert together[0].tokens == model.generate(ids, max_new_tokens=3).tokens


def test_a_chat_of_no_messages_so_far_is_a_chat(tmp_path: Path) -> None:
    made = tiny.decoder(tmp_path / "chat", template="w7 {{ messages[0].content }}")
    with load(made.path, threads=1) as model:
        assert model.encode("w5", chat=[]) == model.encode("w5", chat=True) == [7, 5]
        assert model.encode("w5", chat=()) == [7, 5]
        assert model.encode("w5", chat=None) == model.encode("w5") == [5]


def test_values_of_a_configuration_that_are_no_texts_are_no_tokens(tmp_path: Path) -> None:
    made = tiny.decoder(
        tmp_path / "chat", template="{{ add_bos_token is defined }} {{ bos_token }}"
    )
    assert '"add_bos_token": true' in (made.path / "tokenizer_config.json").read_text("utf-8")
    with load(made.path, threads=1) as model:
        assert model.chat_text([]) == "False <bos>"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (GEMMA, "refuses these messages: Conversation roles must alternate"),
        ("{% if %}", "fails on these messages: TemplateSyntaxError: "),
        ("{% unknown %}", "fails on these messages: TemplateSyntaxError: "),
        ("{{ messages[0].content + 1 }}", "fails on these messages: TypeError: "),
        ("{{ messages[7].content }}", "fails on these messages: UndefinedError: "),
        ("{{ 1 / 0 }}", "fails on these messages: ZeroDivisionError: "),
    ],
)
def test_a_template_that_does_not_work_is_refused(template: str, said: str, tmp_path: Path) -> None:
    made = tiny.decoder(tmp_path / "chat", template=template)
    messages = [{"role": "assistant", "content": "w5"}]
    with load(made.path, threads=1) as model, pytest.raises(LoaderError, match=re.escape(said)):
        model.generate(messages, max_new_tokens=2)
