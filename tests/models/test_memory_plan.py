import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from thanos.errors import UserError
from thanos.models import find_blocks, linear_layers
from thanos.models.memory_plan import MIB, Work, plan_memory

WORK = Work(
    windows=4,
    tokens=32,
    batch_size=2,
    statistics="gram",
    squares=1,
    temporaries=3,
    precision=4,
    hidden_budget=10**9,
)


@pytest.fixture
def plan(tmp_path):
    def of(model, work=WORK, **options):
        model.save_pretrained(tmp_path)
        return plan_memory(tmp_path, work, **options)

    return of


def test_weights_of_a_block_and_of_what_is_around(any_model, plan):
    found = plan(any_model)

    blocks = find_blocks(any_model)
    sizes = [sum(p.numel() for p in block.parameters()) * 4 for block in blocks.modules]
    assert found.block == max(sizes)
    total = sum(parameter.numel() for parameter in any_model.parameters()) * 4
    assert found.around == total - sum(sizes)


@pytest.mark.parametrize(
    ("family", "widths"),
    [
        ("llama", [32, 32, 32, 48]),  # q k v | o | gate up | down
        ("opt", [32, 32, 32, 48]),
        ("gpt2", [32, 32, 32, 48]),  # stored the other way round, as its biases tell
        ("phi3", [32, 32, 32, 48]),
        ("qwen3", [32, 32, 32, 48]),
        ("gpt-neox", [32, 32, 32, 48]),
    ],
)
def test_gram_matrices_are_those_of_the_different_inputs(tiny, plan, family, widths):
    assert plan(tiny(family)).gram == 4 * sum(width**2 for width in widths)


def test_never_fewer_gram_matrices_than_the_widths_of_its_layers(any_model, plan):
    blocks = find_blocks(any_model)
    layers = linear_layers(blocks.modules[0], blocks.name_of(0)).values()
    assert plan(any_model).gram >= 4 * sum({layer.shape[1] ** 2 for layer in layers})


def test_what_costs_more_is_planned_with_more(tiny, plan):
    llama = tiny("llama")
    base = plan(llama)

    assert plan(llama, replace(WORK, windows=400)).host > base.host
    assert plan(llama, replace(WORK, precision=8)).gram == 2 * base.gram
    assert plan(llama, replace(WORK, precision=8)).solve > base.solve
    assert plan(llama, replace(WORK, squares=0)).solve == base.solve - 4 * 48**2
    assert plan(llama, replace(WORK, temporaries=10)).solve == base.solve + 7 * 4 * 32 * 48
    assert plan(llama, replace(WORK, statistics="none")).forward == 0
    assert plan(llama, replace(WORK, statistics="diagonal")).gram < base.gram


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_what_layers_get_in_the_dense_model_is_planned_for_where_there_is_room(tiny, plan, family):
    model = tiny(family)
    states = plan(model, replace(WORK, streams=2)).hidden
    groups = {"llama": 3 * 32 + 48, "mixtral": 3 * 32}[family]  # experts get what their router gets
    inputs = 4 * 32 * groups * 4
    enough, short = (
        replace(WORK, streams=2, compares=True, hidden_budget=states + inputs - n) for n in (0, 1)
    )

    assert plan(model, enough).inputs == inputs + plan(model, enough).forward  # of holes between
    assert plan(model, short).inputs == plan(model, enough, on_device=True).inputs == 0


@pytest.mark.parametrize("on_device", [False, True])
def test_the_next_block_and_the_last_one_are_planned_for(tiny, plan, on_device):
    model = tiny("llama").bfloat16()
    base, both = (
        plan(model, replace(WORK, overlap=overlap), on_device=on_device) for overlap in (0, 1)
    )

    written = plan(model, on_device=True).block  # as it is stored
    assert (base.overlap, both.overlap) == (0, base.block + written)
    ahead, behind = (0, written) if on_device else (base.block, written)
    assert both.host - base.host == pytest.approx(1.15 * (ahead + behind), abs=2)
    assert both.device - base.device == pytest.approx(1.15 * base.block * on_device, abs=2)


def test_half_precision_blocks_are_half_as_large_on_a_device_only(tiny, plan):
    single, half = tiny("llama"), tiny("llama").bfloat16()

    assert plan(half, on_device=True).block == plan(single, on_device=True).block // 2
    assert plan(half).block == plan(single).block


def test_mapped_hidden_states_take_no_memory_of_their_own(tiny, plan):
    work = replace(WORK, windows=400)
    assert (
        plan(tiny("llama"), replace(work, hidden_budget=0)).hidden
        < plan(tiny("llama"), work).hidden
    )


def test_windows_are_no_longer_than_the_model_allows(tiny, plan):
    long = plan(tiny("llama"), replace(WORK, tokens=10**6))  # the model's context is 64
    assert long.hidden == 4 * 64 * 32 * 4


def test_a_device_takes_the_pruning_off_the_host(tiny, plan):
    host, device = plan(tiny("llama")), plan(tiny("llama"), on_device=True)

    assert host.device == 0
    assert device.device > 0
    assert "MiB on the device" in str(device)
    assert "MiB on the device" not in str(host)
    assert f"{host.host / MIB:,.0f} MiB on the host (block" in str(host)


def test_depth_does_not_matter(custom, tiny, plan):
    config = tiny("llama").config
    config.num_hidden_layers = 9
    assert plan(custom(config)) == plan(tiny("llama"))


def test_a_model_without_blocks(tmp_path, tiny):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="holds no decoder blocks"):
        plan_memory(tmp_path, WORK)


def test_planning_imports_no_torch():
    code = "import sys, thanos.workflow.resources; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
