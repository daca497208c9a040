"""A random LLaMA in a GGUF file, four bits a weight, and the weights that it must open with."""

import zipfile

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers import pre_tokenizers

HIDDEN, HEADS, KV_HEADS, MLP, BLOCKS, CONTEXT = 64, 4, 2, 96, 2, 32
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<s>", "</s>"]


def write_gguf(path, seed=0):
    """Write the file; return its weights by transformers' names, (rows, columns) in bfloat16."""
    generator = np.random.default_rng(seed)
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 2) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(TOKENS) - 2)
    writer.add_eos_token_id(len(TOKENS) - 1)
    expected = {}

    def add(name, theirs, *shape, heads=0):
        values = generator.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
            stored = values
        else:
            packed = quantize(values, GGMLQuantizationType.Q4_1)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q4_1)
            stored = four_bits(packed, shape)
        expected[theirs] = torch.from_numpy(in_halves(stored, heads)).bfloat16()

    add("token_embd.weight", "model.embed_tokens.weight", len(TOKENS), HIDDEN)
    add("output_norm.weight", "model.norm.weight", HIDDEN)
    keys = HIDDEN // HEADS * KV_HEADS
    for block in range(BLOCKS):
        here, there = f"blk.{block}.", f"model.layers.{block}."
        add(f"{here}attn_norm.weight", f"{there}input_layernorm.weight", HIDDEN)
        add(f"{here}ffn_norm.weight", f"{there}post_attention_layernorm.weight", HIDDEN)
        attention, mlp = f"{there}self_attn.", f"{there}mlp."
        add(f"{here}attn_q.weight", f"{attention}q_proj.weight", HIDDEN, HIDDEN, heads=HEADS)
        add(f"{here}attn_k.weight", f"{attention}k_proj.weight", keys, HIDDEN, heads=KV_HEADS)
        add(f"{here}attn_v.weight", f"{attention}v_proj.weight", keys, HIDDEN)
        add(f"{here}attn_output.weight", f"{attention}o_proj.weight", HIDDEN, HIDDEN)
        add(f"{here}ffn_gate.weight", f"{mlp}gate_proj.weight", MLP, HIDDEN)
        add(f"{here}ffn_up.weight", f"{mlp}up_proj.weight", MLP, HIDDEN)
        add(f"{here}ffn_down.weight", f"{mlp}down_proj.weight", HIDDEN, MLP)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def four_bits(packed, shape):
    """Q4_1 by its definition: of 32 weights scale and least in half precision, then 16 bytes."""
    blocks = packed.reshape(-1, 20)
    scale, least = (blocks[:, at : at + 2].copy().view(np.float16) for at in (0, 2))
    low, high = blocks[:, 4:] & 15, blocks[:, 4:] >> 4
    steps = np.concatenate([low, high], axis=1).astype(np.float32)
    return (scale.astype(np.float32) * steps + least.astype(np.float32)).reshape(shape)


def in_halves(weight, heads):
    """Rows of queries and keys are turned in pairs in the file, in halves of a head here."""
    if not heads:
        return weight
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def write_wheel(folder, gguf, name="tiny_model", version="1.0"):
    """Write a wheel that has the file in it and names a dependency that does not exist."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-thing"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, f"{name}/{gguf.name}")
        archive.writestr(f"{metadata}/METADATA", f"{about}\n")
        archive.writestr(f"{metadata}/WHEEL", tags)
        archive.writestr(f"{metadata}/RECORD", "")
        archive.writestr(f"{metadata}/licenses/LICENSE", "Do as you like.\n")
    return wheel
