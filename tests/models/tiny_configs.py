"""A tiny configuration of any causal language model that transformers knows.

Sizes are set by the key's name, wherever a configuration has it, in its parts too. `OWN` says what
a family needs besides.
"""

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

LAYERS = 4
_WIDTH = ("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "lru_width")
_ALSO_WIDTH = (
    *("hidden_size_global", "input_embedding_size", "output_embedding_size", "ple_embed_dim"),
)
_LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth"),
    "num_decoder_layers",
)
_HEADS = (
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    *("decoder_attention_heads", "encoder_attention_heads"),
    *("num_decoder_attention_heads", "num_encoder_attention_heads", "linear_num_heads"),
)
_INNER = (
    *("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "dff", "d_inner", "dim_ff"),
    *("decoder_ffn_dim", "encoder_ffn_dim", "feed_forward_size", "intermediate_size_mlp"),
)
_EXPERT = (
    *("moe_intermediate_size", "expert_dim", "expert_ffn_hidden_size", "shared_intermediate_size"),
    *("shared_expert_intermediate_size", "shared_experts_intermediate_size"),
    "moe_shared_expert_intermediate_size",
)
_CONTEXT = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions", "n_ctx"),
    *("context_length", "model_max_length", "max_source_positions"),
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = (
    *("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk"),
    "top_k_experts",
)
_EIGHT = (
    *("head_dim", "attention_head_dim", "dim_head", "v_head_dim", "kv_lora_rank", "index_head_dim"),
    *("mamba_n_heads", "mamba_d_head", "mamba_num_heads", "mamba_head_dim", "mamba_d_state"),
    *("mamba_chunk_size", "chunk_size", "ssm_state_size", "state_size", "sliding_window"),
    *("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "index_topk"),
    *("hidden_size_per_layer_input", "hidden_size_per_layer_inputs", "image_size", "window_size"),
)
SIZES: dict[str, Any] = {
    **dict.fromkeys((*_WIDTH, *_ALSO_WIDTH), 32),
    **dict.fromkeys(_LAYERS, LAYERS),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_INNER, 48),
    **dict.fromkeys(_EXPERT, 24),
    **dict.fromkeys(_CONTEXT, 64),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_CHOSEN, 2),
    **dict.fromkeys(_EIGHT, 8),
    **{"vocab_size": 256, "vocab_size_per_layer_input": 256, "codebook_size": 16},
    **{"num_key_value_heads": 2, "num_kv_heads": 2, "index_n_heads": 2, "linear_num_key_heads": 2},
    **{"linear_num_value_heads": 4, "n_mamba_heads": 2, "mamba_d_ssm": 64, "mamba_dt_rank": 4},
    **{"encoder_layers": 2, "num_encoder_layers": 2, "patch_size": 4, "num_global_layers": 1},
    **{"n_group": 1, "topk_group": 1, "mamba_n_groups": 1, "mamba_ngroups": 1, "n_groups": 1},
    **{"q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "attention_chunk_size": 16},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1},
    **{"is_decoder": True, "num_position_embeddings": 16, "out_hidden_size": 32},
}
_ALSO_IF_NONE = ("head_dim", "bos_token_id", "eos_token_id", "pad_token_id")
# Lists with an entry for every layer.
_PER_LAYER = (
    *("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types", "no_rope_layers"),
)
OWN: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "deepseek_v2": {"topk_method": "greedy", "n_routed_experts": 4, "num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4, "per_layer_config": {}, "head_dim": 8},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [48] * LAYERS,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        "laurel_rank": 8,
    },
    "gemma4_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "prophetnet": {"num_hidden_layers": None},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "hc_lowrank": 8,
        "ngram_vocab_size_base": 100,
        "split_ngram_parts": 1,
    },
    "reformer": {
        "attn_layers": ["local", "lsh"] * 2,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 24],
        "attention_head_size": 8,
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_hidden_layers": None,
    },
    "roc_bert": {"pronunciation_vocab_size": 32, "shape_vocab_size": 32},
    "xlm": {"emb_dim": 32, "n_words": 256, "n_langs": 1, "causal": True},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {
        "n_mamba_heads": 8,
        "num_key_value_heads": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "adapter_rank": 8,
    },
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}


def tiny_config(kind: str) -> PreTrainedConfig:
    """The configuration of `kind`, a few thousand weights large."""
    known = CONFIG_MAPPING[kind]
    try:
        values = known().to_dict()
    except Exception:  # some defaults contradict each other
        values = {}
    return known(**_shrunk(values, kind))


def _shrunk(values: dict[str, Any], kind: str) -> dict[str, Any]:
    small = {
        key: size
        for key, size in SIZES.items()
        if key in values and (values[key] is not None or key in _ALSO_IF_NONE)
    }
    for key in _PER_LAYER:
        if isinstance(values.get(key), list) and values[key]:
            kinds = list(dict.fromkeys(values[key]))
            small[key] = [kinds[i * len(kinds) // LAYERS] for i in range(LAYERS)]
    for key, part in values.items():
        if isinstance(part, dict) and "model_type" in part:
            small[key] = {
                "model_type": part["model_type"],
                **_shrunk(part, part["model_type"]),
            }
    if "qk_rope_head_dim" in small:  # multi-head latent attention: what rotates is no whole head
        small["head_dim"] = small["qk_rope_head_dim"]
        if "num_key_value_heads" in small:
            small["num_key_value_heads"] = small["num_attention_heads"]
    if "rotary_dim" in values:
        small["rotary_dim"] = 4
    small |= OWN.get(kind, {})
    return {key: size for key, size in small.items() if size is not None}
