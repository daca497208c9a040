"""Small tokenizers of the kinds that the paper's models have, in the files that they publish."""

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

VOCABULARY = 600
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
)


def _write(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _byte_level(texts: list[str], special: list[str], split: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = level
    if split is not None:
        cut = pre_tokenizers.Split(Regex(split), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special),
        initial_alphabet=alphabet,
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _model(tokenizer: Tokenizer) -> tuple[dict[str, int], list[str]]:
    described = json.loads(tokenizer.to_str())["model"]
    return described["vocab"], [" ".join(pair) for pair in described["merges"]]


def opt(folder: Path, texts: list[str]) -> None:
    """GPT-2's byte-level BPE as `vocab.json` and `merges.txt`; no tokenizer.json."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary, merges = _model(_byte_level(texts, first))
    ids = {token: n for n, token in enumerate([*first, *vocabulary])}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    special = {
        name: {
            "content": content,
            "lstrip": False,
            "normalized": True,
            "rstrip": False,
            "single_word": False,
        }
        for name, content in (("bos_token", "</s>"), ("eos_token", "</s>"), ("unk_token", "</s>"))
    }
    _write(folder / "special_tokens_map.json", {**special, "pad_token": "<pad>"})
    settings = {"errors": "replace", "add_prefix_space": False, "add_bos_token": True}
    settings |= {"pad_token": "<pad>", "tokenizer_class": "GPT2Tokenizer"}
    typed = {name: {"__type": "AddedToken", **value} for name, value in special.items()}
    _write(folder / "tokenizer_config.json", {**settings, **typed})


def llama_2(folder: Path, texts: list[str]) -> None:
    """SentencePiece: `tokenizer.model`, and the same as `tokenizer.json`."""
    bytes_of = [f"<0x{n:02X}>" for n in range(256)]
    first = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # to train by words
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*first, *bytes_of], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = None
    vocabulary, _ = _model(tokenizer)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [t for t in described["added_tokens"] if t["content"] in first]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    proto = sentencepiece.ModelProto()
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, **dict.fromkeys(bytes_of, 6)}
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        kind = kinds.get(token, 1)
        proto.pieces.add(piece=token, score=0.0 if kind != 1 else -float(number), type=kind)
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    _write(
        folder / "special_tokens_map.json",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    )
    settings = {"add_bos_token": True, "add_eos_token": False, "legacy": False}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings |= {"model_max_length": 1000000000000000019884624838656, "pad_token": None}
    _write(folder / "tokenizer_config.json", {**settings, "tokenizer_class": "LlamaTokenizer"})


def llama_3(folder: Path, texts: list[str]) -> None:
    """Byte-level BPE that is published as `tokenizer.json` alone."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer = _byte_level(texts, special, _SPLIT)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    begin = tokenizer.token_to_id(special[0])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A", special_tokens=[(special[0], begin)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": special[0], "eos_token": special[1]}
    _write(folder / "special_tokens_map.json", names)
    settings = {"clean_up_tokenization_spaces": True, "model_max_length": 131072}
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    _write(folder / "tokenizer_config.json", settings)


def qwen_3(folder: Path, texts: list[str]) -> None:
    """Byte-level BPE in all three forms, without a token for the beginning of a text."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _byte_level(texts, special, _SPLIT)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary, merges = _model(tokenizer)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    settings = {"add_bos_token": False, "add_prefix_space": False, "bos_token": None}
    settings |= {"chat_template": "{{ messages[0].content }}", "errors": "replace"}
    settings |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    settings |= {"model_max_length": 131072, "split_special_tokens": False}
    settings |= {"additional_special_tokens": special[1:], "tokenizer_class": "Qwen2Tokenizer"}
    _write(folder / "tokenizer_config.json", settings)
