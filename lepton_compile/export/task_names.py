"""Tasks by name, and transformers' classes for them.

Names are optimum's, and two that it has not: sparse-embedding and multi-vector-embedding.
"""

from __future__ import annotations

from typing import Any

from lepton_compile.errors import ExportError

from .image_text_kinds import IMAGE_TEXT_KINDS
from .text_tower import has_towers, tower_class
from .vision_part import image_class, reads_images

__all__ = ["AUTO_CLASSES", "auto_class", "check_known", "infer_task"]

AUTO_CLASSES = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "image-classification": "AutoModelForImageClassification",
    "image-feature-extraction": "AutoModel",
    "image-text-to-text": "AutoModelForImageTextToText",
    "multi-vector-embedding": "AutoModel",
    "question-answering": "AutoModelForQuestionAnswering",
    "sparse-embedding": "AutoModelForMaskedLM",
    "automatic-speech-recognition": "AutoModelForSpeechSeq2Seq",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "token-classification": "AutoModelForTokenClassification",
}

_HEADS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "VisionModelWithProjection": "image-feature-extraction",
    "TextModelWithProjection": "feature-extraction",
    "Model": "feature-extraction",
}


def auto_class(config: Any, task: str) -> Any:
    """transformers' class for the models of a task; of one that reads and writes (T5) what reads.

    Raises:
        ExportError: the task is unknown.
    """
    import transformers

    if task not in AUTO_CLASSES:
        raise ExportError("this task is not supported", found=task, available=sorted(AUTO_CLASSES))
    if task == "image-feature-extraction":
        return image_class(config)
    if task == "feature-extraction" and (tower := tower_class(config)) is not None:
        return tower
    auto = getattr(transformers, AUTO_CLASSES[task])
    reads = transformers.AutoModelForTextEncoding
    if auto is not transformers.AutoModel or type(config) not in reads._model_mapping:
        return auto
    name = reads._model_mapping[type(config)].__name__
    return reads if name.endswith("EncoderModel") else auto


def check_known(auto: Any, config: Any, task: str) -> None:
    """Refuse what ``auto``, the class of a task, makes no model of. Raises ExportError."""
    known = getattr(auto, "_model_mapping", {type(config): auto})
    if type(config) not in known and not hasattr(config, "auto_map"):
        raise ExportError(
            f"transformers has no model of this architecture for the task {task}",
            found=type(config).__name__,
            hint="choose another task, or a model of another architecture",
        )


def infer_task(architecture: str, *, pair: bool = False) -> str:
    """The task a model class was made for, such as ``BertForMaskedLM``.

    Args:
        pair: whether its configuration says that it has an encoder and a decoder.

    Raises:
        ExportError: the class is for something this version does not compile.
    """
    from transformers.models.auto import modeling_auto as auto

    if pair and architecture in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.values():
        return "automatic-speech-recognition"
    if pair and architecture in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values():
        return "text2text-generation"
    whole = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if architecture in map(whole.get, IMAGE_TEXT_KINDS):
        return "image-text-to-text"
    if has_towers(architecture):
        raise ExportError(
            "the model is for texts and for pictures, and an artifact is for one of them",
            where="task",
            found=architecture,
            available=["feature-extraction", "image-feature-extraction"],
            hint="name the task in the recipe, or with --task: one artifact for each",
        )
    for ending, task in _HEADS.items():
        if architecture.endswith(ending):
            seen = task == "feature-extraction" and reads_images(architecture)
            return "image-feature-extraction" if seen else task
    hint = "name the task in the recipe, or with --task"
    if architecture.endswith("ForConditionalGeneration"):
        hint += "; text-generation takes the language model out of a multimodal one"
    raise ExportError(
        "the task of the model cannot be told from its class",
        where="task",
        found=architecture,
        available=sorted(AUTO_CLASSES),
        hint=hint,
    )
