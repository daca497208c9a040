"""The eighteen repositories of the paper's suite as they are published, with models of two blocks.

File names, formats, shards, dtypes, configuration keys and kinds of tokenizer are the real ones;
hidden sizes and vocabularies are not.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from . import tokenizers_of

_SHARED = {"num_hidden_layers": 2, "vocab_size": tokenizers_of.VOCABULARY, "use_cache": True}
_OPT = {
    **_SHARED,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "hidden_size": 32,
    "ffn_dim": 128,
    "num_attention_heads": 2,
    "max_position_embeddings": 2048,
    "word_embed_proj_dim": 32,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "_remove_final_layer_norm": False,
}
_OPT_350M = {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16}
_LLAMA = {
    **_SHARED,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 88,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "rope_scaling": None,
    "attention_bias": False,
}
_LLAMA_2 = {
    **_LLAMA,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 4096,
    "pretraining_tp": 1,
    "torch_dtype": "float16",
}
_TINY = {**_LLAMA_2, "max_position_embeddings": 2048, "rope_theta": 10000.0}
_TINY |= {"num_key_value_heads": 1, "torch_dtype": "bfloat16"}
_LLAMA_3 = {
    **_LLAMA,
    "bos_token_id": tokenizers_of.VOCABULARY - 3,
    "eos_token_id": tokenizers_of.VOCABULARY - 2,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 1,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
}
_LLAMA_32 = {
    **_LLAMA_3,
    "head_dim": 16,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
_QWEN_3 = {
    **_LLAMA,
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "bos_token_id": tokenizers_of.VOCABULARY - 3,
    "eos_token_id": tokenizers_of.VOCABULARY - 1,
    "head_dim": 32,  # not hidden_size / num_attention_heads
    "num_key_value_heads": 1,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "sliding_window": None,
    "use_sliding_window": False,
    "rope_theta": 1000000,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
_BASE = "model."


@dataclass(frozen=True)
class Repository:
    """How a model is published.

    Attributes:
        config: its config.json.
        tokenizer: writes its files.
        shards: of the safetensors; none if there are pickles only.
        pickles: shards of `pytorch_model.bin`.
        gated: whether a token is needed.
        rename: the name in the pickles of one of the model's.
        head: whether the pickles hold a tied head once more.
    """

    config: dict[str, Any]
    tokenizer: Callable[[Path, list[str]], None]
    shards: int = 0
    pickles: int = 0
    gated: bool = False
    rename: Callable[[str], str] = str
    head: bool = False


def _short(name: str) -> str:
    return name.removeprefix(_BASE)


def _mixed(name: str) -> str:
    return _short(name) if "layers.1." in name else name


def _opt(config: dict[str, Any], shards: int, rename: Callable[[str], str], head: bool):
    return Repository(config, tokenizers_of.opt, 0, shards, False, rename, head)


def _llama_2(shards: int, **changes: Any) -> Repository:
    config = {**_LLAMA_2, **changes}
    return Repository(config, tokenizers_of.llama_2, shards, shards, gated=True)


def _llama_3(shards: int, config: dict[str, Any] = _LLAMA_3) -> Repository:
    return Repository(config, tokenizers_of.llama_3, shards, gated=True)


def _qwen_3(shards: int, **changes: Any) -> Repository:
    return Repository({**_QWEN_3, **changes}, tokenizers_of.qwen_3, shards)


REPOSITORIES = {
    "facebook/opt-125m": _opt(_OPT, 1, str, head=True),
    "facebook/opt-350m": _opt(_OPT_350M, 1, _short, head=False),
    "facebook/opt-1.3b": _opt(_OPT, 1, _short, head=True),
    "facebook/opt-2.7b": _opt(_OPT, 1, str, head=False),
    "facebook/opt-6.7b": _opt(_OPT, 2, _mixed, head=True),
    "facebook/opt-13b": _opt(_OPT, 3, _mixed, head=False),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": Repository(_TINY, tokenizers_of.llama_2, 1),
    "meta-llama/Llama-2-7b-hf": _llama_2(2),
    "meta-llama/Llama-2-13b-hf": _llama_2(3),
    "meta-llama/Llama-2-70b-hf": _llama_2(15, num_key_value_heads=1),
    "meta-llama/Llama-3.2-1B": _llama_3(1, _LLAMA_32),
    "meta-llama/Llama-3.2-3B": _llama_3(2, _LLAMA_32),
    "meta-llama/Meta-Llama-3-8B": _llama_3(4),
    "meta-llama/Meta-Llama-3-70B": _llama_3(30),
    "Qwen/Qwen3-0.6B": _qwen_3(1),
    "Qwen/Qwen3-1.7B": _qwen_3(2),
    "Qwen/Qwen3-4B": _qwen_3(3),
    "Qwen/Qwen3-8B": _qwen_3(5, tie_word_embeddings=False),
}


def write_repository(name: str, folder: Path, texts: list[str]) -> None:
    """Lay out a repository of the hub."""
    repository = REPOSITORIES[name]
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"# {name}\n")
    (folder / "config.json").write_text(json.dumps(repository.config, indent=2) + "\n")
    generation = {key: repository.config[key] for key in ("bos_token_id", "eos_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    repository.tokenizer(folder, texts)
    torch.manual_seed(sum(map(ord, name)))
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    model.to(getattr(torch, repository.config["torch_dtype"]))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    if repository.shards:
        kept = {name: tensor for name, tensor in state.items() if name not in tied}
        _write_shards(kept, folder, "model", "safetensors", repository.shards)
    if repository.pickles:
        kept = {
            repository.rename(name): tensor
            for name, tensor in state.items()
            if repository.head or name not in tied
        }
        _write_shards(kept, folder, "pytorch_model", "bin", repository.pickles)
    if name.startswith("facebook/"):  # the same weights for other libraries
        (folder / "flax_model.msgpack").write_bytes(b"\x80")
        (folder / "tf_model.h5").write_bytes(b"\x89HDF")
    if "Llama-3" in name:
        (folder / "original").mkdir()
        (folder / "original" / "consolidated.00.pth").write_bytes(b"PK")
        (folder / "original" / "params.json").write_text("{}")


def _write_shards(
    state: dict[str, Tensor], folder: Path, stem: str, suffix: str, shards: int
) -> None:
    """One file, or several in the order of the names and an index."""
    names = [f"{stem}-{n:05d}-of-{shards:05d}.{suffix}" for n in range(1, shards + 1)]
    if shards == 1:
        names = [f"{stem}.{suffix}"]
    place = {name: names[n * shards // len(state)] for n, name in enumerate(state)}
    for file in names:
        held = {name: state[name] for name in state if place[name] == file}
        if not held:
            continue  # two blocks have fewer tensors than Llama-3-70B has shards
        if suffix == "bin":
            torch.save(held, folder / file)
        else:
            save_file(held, folder / file, metadata={"format": "pt"})
    if shards > 1:
        total = sum(tensor.nbytes for tensor in state.values())
        index = {"metadata": {"total_size": total}, "weight_map": place}
        text = json.dumps(index, indent=2)
        (folder / f"{stem}.{suffix}.index.json").write_text(text)
