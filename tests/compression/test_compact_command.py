"""`thanos compact`: what it leaves out, what it says, and what opens it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from thanos import load_compact, load_packed
from thanos.artifacts import verify_manifest, write_manifest
from thanos.compression.compact_folders import narrow_folder
from thanos.compression.indexed import FILE
from thanos.errors import UserError
from thanos.models import find_blocks, linear_layers, prune_model
from thanos.pruning import prune_weight
from thanos.stages.compact import main
from thanos.stages.pack import main as pack

# Of each family the layer that attention feeds, and the one that the other half of a block feeds.
FEEDING = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "opt": ("self_attn.out_proj", "fc2"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "phi3": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen3": ("self_attn.o_proj", "mlp.down_proj"),
    "gemma2": ("self_attn.o_proj", "mlp.down_proj"),
    "falcon": ("self_attention.dense", "mlp.dense_4h_to_h"),
}


@torch.no_grad()
def remove(model, layer, columns):
    """Zero other columns of a layer in every block, `columns(block, width)` of them."""
    for number, block in enumerate(find_blocks(model).modules):
        found = linear_layers(block, "block")[f"block.{layer}"]
        weight = found.weight.clone()
        weight[:, columns(number, weight.shape[1])] = 0
        found.write(weight)


def random_columns(number, width):
    order = torch.randperm(width, generator=torch.Generator().manual_seed(number))
    return order[: width // 3]


def one_half(number, width):
    """The first half of the heads, or the second: whole groups of heads."""
    return torch.arange(width // 2) + (number % 2) * (width // 2)


def logits(model, tokens):
    with torch.inference_mode():
        return model(input_ids=tokens).logits


@pytest.fixture
def save(tmp_path):
    """Return `save(model, **options)`: its folder."""

    def save(model, **options) -> Path:
        model.save_pretrained(tmp_path / "pruned", **options)
        return tmp_path / "pruned"

    return save


@pytest.mark.parametrize(
    ("family", "heads"),
    [
        ("llama", {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ("phi3", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}),
        ("qwen3", {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ("gemma2", {"num_attention_heads": 2, "num_key_value_heads": 1}),
        # Their attention is as wide as the hidden states, so that heads stay.
        ("opt", None),
        ("gpt2", None),
        ("falcon", None),
    ],
)
def test_heads_and_neurons_leave_the_configuration(
    families, others, save, tokens, tmp_path, family, heads
):
    made = {"llama": lambda: families["llama"](kv_heads=2), "opt": families["opt"], **others}
    model = made[family]()
    attention, neurons = FEEDING[family]
    remove(model, attention, one_half)
    remove(model, neurons, random_columns)
    expected = logits(model, tokens)
    folder = save(model)

    narrowed = narrow_folder(folder, tmp_path / "compact")

    opened, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "compact", output_loading_info=True
    )
    assert not report["missing_keys"] | report["unexpected_keys"]
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4
    width = linear_layers(find_blocks(model).modules[0], "b")[f"b.{neurons}"].shape[1]
    assert narrowed.gone[neurons] == width // 3
    changes = {k: v for k, v in narrowed.changes.items() if v != width - width // 3}
    assert changes == (heads or {})
    if heads is None:
        assert narrowed.remaining[attention] == sum(
            linear_layers(block, "b")[f"b.{attention}"].shape[1] // 2
            for block in find_blocks(model).modules
        )
    assert narrowed.parameters == tuple(
        sum(p.numel() for p in each.parameters()) for each in (model, opened)
    )
    written = json.loads((tmp_path / "compact" / "config.json").read_text())
    assert {key: written[key] for key in narrowed.changes} == narrowed.changes
    verify_manifest(tmp_path / "compact", maker="thanos compact")


def test_a_number_of_heads_that_llama_refuses_is_said_otherwise(families, save, tokens, tmp_path):
    model = families["llama"]()
    remove(model, "self_attn.o_proj", lambda number, width: torch.arange(8) + 8 * number)
    expected = logits(model, tokens)
    with pytest.raises(Exception, match="not a multiple of the number of attention heads"):
        LlamaConfig(hidden_size=32, num_attention_heads=3, num_key_value_heads=3, head_dim=8)

    narrowed = narrow_folder(save(model), tmp_path / "compact")

    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "compact")
    assert opened.config.num_attention_heads == 3
    assert opened.config.sliding_window is None
    assert narrowed.changes["model_type"] == opened.config.model_type == "mistral"
    assert opened.config.architectures == [type(opened).__name__]
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("rope", "scaling"),
    [
        ({"rope_type": "default", "rope_theta": 500.0}, None),
        (
            {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
            {"rope_type": "linear", "factor": 2.0},
        ),
    ],
)
def test_rotary_positions_are_told_to_older_readers_too(
    families, save, tokens, tmp_path, rope, scaling
):
    config = families["llama"]().config
    config.rope_parameters = rope
    model = AutoModelForCausalLM.from_config(config).eval()
    remove(model, "mlp.down_proj", random_columns)
    expected = logits(model, tokens)

    narrow_folder(save(model), tmp_path / "compact")

    written = json.loads((tmp_path / "compact" / "config.json").read_text())
    assert written["rope_parameters"] == rope
    assert (written["rope_theta"], written.get("rope_scaling")) == (500.0, scaling)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "compact")
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4


def test_a_head_of_a_group_that_others_need_stays(families, save, tmp_path):
    model = families["llama"](kv_heads=2)
    remove(model, "self_attn.o_proj", lambda number, width: torch.arange(8))
    remove(model, "mlp.down_proj", random_columns)

    narrowed = narrow_folder(save(model), tmp_path / "compact")

    assert narrowed.gone.keys() == {"mlp.down_proj"}
    assert narrowed.remaining == {"self_attn.o_proj": 2 * 8}


def test_heads_that_all_share_their_keys_go_one_by_one(families, save, tokens, tmp_path):
    model = families["llama"](kv_heads=1)
    remove(model, "self_attn.o_proj", lambda number, width: torch.arange(16) + 8 * number)
    expected = logits(model, tokens)

    narrow_folder(save(model), tmp_path / "compact")

    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "compact")
    assert (opened.config.num_attention_heads, opened.config.num_key_value_heads) == (2, 1)
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4


def test_the_least_that_every_block_lost_goes(families, save, tokens, tmp_path):
    model = families["llama"]()
    remove(model, "mlp.down_proj", lambda number, width: torch.arange(20 - 10 * number))
    expected = logits(model, tokens)

    narrowed = narrow_folder(save(model), tmp_path / "compact")

    assert narrowed.gone == {"mlp.down_proj": 10}
    assert narrowed.remaining == {"mlp.down_proj": 10}
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "compact")
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4


def test_shards_formats_and_what_stands_beside_them(families, save, tmp_path):
    model = families["llama"]().to(torch.bfloat16)
    remove(model, "mlp.down_proj", random_columns)
    folder = save(model, max_shard_size="20KB")
    beside = {"tokenizer.json": '{"a": 1}', "chat_template.jinja": "{{ x }}", "LICENSE": "free"}
    for name, text in beside.items():
        (folder / name).write_text(text)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sparsity_config": {"x": 1}}))

    narrowed = narrow_folder(folder, tmp_path / "compact")

    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "compact")
    assert {p.dtype for p in opened.parameters()} == {torch.bfloat16}
    assert {name: (tmp_path / "compact" / name).read_text() for name in beside} == beside
    written = json.loads((tmp_path / "compact" / "config.json").read_text())
    assert "sparsity_config" not in written
    index = json.loads((tmp_path / "compact" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == narrowed.bytes[1] < narrowed.bytes[0]
    assert len(set(index["weight_map"].values())) > 1


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
def test_the_pattern_for_it_leaves_nothing_behind(families, save, tokens, tmp_path, method):
    model = families["llama"](kv_heads=2)

    def prune_layer(weight, statistics, **given):
        return prune_weight(weight, statistics, method, "heads-neurons:0.4", **given)

    prune_model(model, tokens, prune_layer, statistics="gram", units=True)
    expected = logits(model, tokens)
    zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())

    narrowed = narrow_folder(save(model), tmp_path / "compact")

    assert narrowed.remaining == {}
    assert narrowed.parameters[0] - narrowed.parameters[1] == zeros
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "compact")
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4


def test_nothing_that_can_go(families, prune, save, tmp_path):
    folder = save(prune(families["llama"](hidden=128, layers=1), "2:4"))
    with pytest.raises(UserError, match="nothing was removed that its configuration has a number"):
        narrow_folder(folder, tmp_path / "compact")
    with pytest.raises(UserError, match="no layer has columns that are zero"):
        main(["--indices", str(folder), str(tmp_path / "compact")])
    assert not (tmp_path / "compact").exists()


def test_sources_that_are_refused(families, save, tmp_path):
    target = tmp_path / "compact"
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    experts = AutoModelForCausalLM.from_config(MixtralConfig(vocab_size=8, **shape, **heads))
    for form in ([], ["--indices"]):
        with pytest.raises(UserError, match="is a mixture of experts"):
            main([*form, str(save(experts)), str(target)])
        with pytest.raises(UserError, match="nowhere does not exist"):
            main([*form, str(tmp_path / "nowhere"), str(target)])
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="no model folder"):
            main([*form, str(tmp_path / "empty"), str(target)])
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="there exists already"):
            main([*form, str(tmp_path / "empty"), str(tmp_path / "there")])
    assert not target.exists()


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_the_form_with_indices_is_saved_and_opened(
    families, prune, save, tokens, tmp_path, alpha, capsys
):
    model = prune(families["llama"](kv_heads=2), "structured:0.3", alpha)
    expected = logits(model, tokens)
    model.generation_config.max_length = 33

    main(["--indices", str(save(model)), str(tmp_path / "compact")])

    opened = load_compact(tmp_path / "compact")
    assert "layers made smaller: 14" in capsys.readouterr().out
    assert (logits(opened, tokens) - expected).abs().max() < 1e-4
    assert opened.generation_config.max_length == 33
    assert opened.generate(tokens[:1], max_new_tokens=2, do_sample=False).shape == (1, 18)
    assert opened.lm_head.weight is opened.model.embed_tokens.weight or torch.equal(
        opened.lm_head.weight, opened.model.embed_tokens.weight
    )
    stored = load_file(tmp_path / "compact" / FILE)
    assert sum(t.nbytes for t in stored.values()) < sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize("damage", ["flip", "rows", "places", "missing", "other"])
def test_a_damaged_form_with_indices_is_noticed(families, prune, save, tmp_path, damage):
    folder = tmp_path / "compact"
    main(["--indices", str(save(prune(families["opt"](), "structured:0.3"))), str(folder)])
    file, layer = folder / FILE, "model.decoder.layers.0.self_attn.out_proj"
    with safe_open(file, "pt") as opened:
        facts = opened.metadata()
    tensors = load_file(file)
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    elif damage == "other":
        (folder / "manifest.json").unlink()
    else:
        if damage == "rows":
            tensors["model.decoder.embed_tokens.weight"] = torch.zeros(3, 32)
        elif damage == "places":
            tensors[f"{layer}.kept"][-1] = 10**6
        else:
            del tensors[f"{layer}.weight"]
        save_file(tensors, file, metadata=facts)
        write_manifest(folder, {})  # so that only the content tells

    with pytest.raises(UserError, match=r"compact\.safetensors"):
        load_compact(folder)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_packed_folder_is_opened_without_being_restored(
    families, prune, save, tokens, tmp_path, family
):
    model = prune(families[family](), "0.5").to(torch.bfloat16)
    folder = save(model, max_shard_size="20KB")
    pack(["pack", str(folder), str(tmp_path / "packed")])
    before = sorted(tmp_path.rglob("*"))

    opened = load_packed(tmp_path / "packed")

    restored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert torch.equal(logits(opened, tokens), logits(restored, tokens))
    assert not opened.training
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="is not a packed folder"):
        load_packed(folder)
    damaged = next((tmp_path / "packed").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        load_packed(tmp_path / "packed")


_OPEN = """
import sys
sys.modules["thanos"] = None  # importing it is an error
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    kept = load_file(f"{folder}.logits")
    with torch.inference_mode():
        found = model(input_ids=kept["tokens"]).logits
    print(float((found - kept["logits"]).abs().max()))
"""


def test_a_process_without_thanos_opens_it(families, tokens, tmp_path):
    folders = []
    for family in ("llama", "opt"):
        model = families[family]()
        remove(model, FEEDING[family][0], one_half)
        remove(model, FEEDING[family][1], random_columns)
        model.save_pretrained(tmp_path / f"{family}-pruned")
        folders.append(tmp_path / family)
        narrow_folder(tmp_path / f"{family}-pruned", folders[-1])
        save_file({"tokens": tokens, "logits": logits(model, tokens)}, f"{folders[-1]}.logits")

    command = [sys.executable, "-c", _OPEN, *map(str, folders)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)

    assert [float(line) < 1e-4 for line in result.stdout.split()] == [True, True]
