"""Training keeps every zero, by whichever weights, and goes on where it was killed."""

import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from thanos.errors import UserError
from thanos.recovery import training
from thanos.recovery.adapters import with_adapters
from thanos.recovery.training import Course, Student, train
from thanos.recovery.zeros import Zeros, compare_zeros, pruned_layers, summary

from .conftest import dense_model, opened

CPU = torch.device("cpu")
# Not a fork of this process: torch's threads for gradients may run here already.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["thanos.recovery.training", "transformers.models.llama"])


def course(steps: int = 4, rate: float = 1e-2, batch: int = 4, forward: int = 4) -> Course:
    return Course(steps, rate, batch, forward, seed=0)


def train_all(model, windows, folder, given=None, causes=None, teacher=None, weight=0.0):
    """Train all weights; return the losses and the step that the training went on from."""
    keep = Zeros(model.requires_grad_(True), ()).restore
    student = Student(model, teacher, weight)
    return train(
        student, windows, given or course(), folder, causes or {}, device=CPU, after_step=keep
    )


def filled(before, after) -> int:
    """How many zeros of the layers are none any more."""
    layers = pruned_layers(after, ())
    return sum(
        int((layers[name].weight[layer.weight == 0] != 0).sum())
        for name, layer in pruned_layers(before, ()).items()
    )


def moved(before, after) -> bool:
    """Whether every layer has other weights."""
    layers = pruned_layers(after, ())
    pairs = ((layer.weight, layers[n].weight) for n, layer in pruned_layers(before, ()).items())
    return not any(torch.equal(old, new) for old, new in pairs)


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.25"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral"])
def test_all_weights_but_the_zeros_are_trained(pruned, windows, tmp_path, kind, pattern):
    folder = pruned(kind, pattern)
    model = opened(folder)

    losses, resumed = train_all(model, windows, tmp_path / "work")

    assert (len(losses), resumed) == (4, 0)
    assert losses[-1] < losses[0]
    assert filled(opened(folder), model) == 0
    assert moved(opened(folder), model)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_are_merged_as_they_were_trained(pruned, windows, tmp_path, kind):
    folder = pruned(kind)
    model = with_adapters(opened(folder), 2, ())
    student = Student(model, None, 0.0)
    train(student, windows, course(8, 0.05), tmp_path / "work", {}, device=CPU, after_step=None)
    model.eval()
    with torch.no_grad():
        trained = model(input_ids=windows).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=windows).logits, trained, atol=1e-5, rtol=1e-4)

    assert filled(opened(folder), merged) == 0
    assert moved(opened(folder), merged)
    adapted = {f"{name}.weight" for name in pruned_layers(merged, ())}
    before = dict(opened(folder).named_parameters())
    for name, weight in merged.named_parameters():
        assert name in adapted or torch.equal(weight, before[name]), name


def test_experts_have_no_adapters(pruned):
    with pytest.raises(UserError, match=r"experts\.0\.gate_proj is one matrix .*weights=all"):
        with_adapters(opened(pruned("mixtral")), 2, ())


def test_layers_left_dense_on_purpose_are_not_held(pruned, windows, tmp_path):
    model = opened(pruned())
    layer = model.model.layers[0].mlp.up_proj.weight
    zeros = layer == 0
    student = Student(model.requires_grad_(True), None, 0.0)
    keep = Zeros(model, ["*.up_proj"]).restore
    train(student, windows, course(), tmp_path / "work", {}, device=CPU, after_step=keep)
    assert (layer[zeros] != 0).all()


def test_the_second_term_is_the_divergence_from_the_dense_model(pruned, windows):
    model, teacher = opened(pruned()), dense_model("llama")
    batch = windows[:3]
    with torch.no_grad():
        found = model(input_ids=batch, labels=batch)
        ours, dense = found.logits.softmax(-1), teacher(input_ids=batch).logits.softmax(-1)
        divergence = (dense * (dense / ours).log()).sum(-1).mean()
        loss = Student(model, teacher, 0.3)(batch)["loss"]
    torch.testing.assert_close(loss, found.loss + 0.3 * divergence)


def test_a_teacher_neither_learns_nor_is_kept(pruned, windows, tmp_path):
    teacher = dense_model("gpt2").requires_grad_(False)
    before = {name: weight.clone() for name, weight in teacher.named_parameters()}
    model = opened(pruned("gpt2"))
    alone, _ = train_all(opened(pruned("gpt2")), windows, tmp_path / "alone")
    losses, _ = train_all(model, windows, tmp_path / "taught", teacher=teacher, weight=1.0)
    assert losses[0] > alone[0]
    assert all(torch.equal(before[name], weight) for name, weight in teacher.named_parameters())
    assert not any("teacher" in name for name in Student(model, teacher, 1.0).state_dict())
    assert not Student(model, teacher, 1.0).train().teacher.training


def test_windows_per_forward_pass_change_last_bits_only(pruned, windows, tmp_path):
    one, other = opened(pruned()), opened(pruned())
    train_all(one, windows, tmp_path / "one", course(forward=4))
    train_all(other, windows, tmp_path / "other", course(forward=2))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        # AdamW divides by the gradient's size: where that is rounding, so is the step.
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_training_that_diverges_is_stopped(pruned, windows, tmp_path):
    with pytest.raises(UserError, match=r"loss of step \d+ is nan; lower recovery.learning_rate"):
        train_all(opened(pruned()), windows, tmp_path / "work", course(rate=1e30))


def train_until(folder: Path, work: Path, windows, step: int, whole: bool, causes) -> None:
    """Train, and wait in a step whose state is kept, or half of it."""
    torch.set_num_threads(1)
    keep = training._Watch.on_save

    def save(self, args, state, control, **given):
        if state.global_step < step or whole:
            keep(self, args, state, control, **given)
        if state.global_step == step:
            (work / "reached").touch()
            time.sleep(600)

    training._SAVE_SECONDS, training._Watch.on_save = -1.0, save
    train_all(opened(folder), windows, work, course(8), causes)


def killed(folder: Path, work: Path, windows, step: int, whole: bool = True, causes=None) -> None:
    """Train in a process of its own that is killed in that step."""
    (work / "reached").unlink(missing_ok=True)
    process = SERVER.Process(target=train_until, args=(folder, work, windows, step, whole, causes))
    process.start()
    while not (work / "reached").exists() and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -9


def test_killed_it_goes_on_and_ends_as_if_never_killed(pruned, windows, tmp_path):
    folder = pruned()
    killed(folder, tmp_path / "work", windows, 2)
    killed(folder, tmp_path / "work", windows, 6, whole=False)
    model, whole = opened(folder), opened(folder)

    losses, resumed = train_all(model, windows, tmp_path / "work", course(8))
    expected, _ = train_all(whole, windows, tmp_path / "whole", course(8))

    assert resumed == 5
    assert losses == pytest.approx(expected, rel=1e-5)
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert filled(opened(folder), model) == 0


def test_a_damaged_state_is_not_read(pruned, windows, tmp_path, caplog):
    folder, work = pruned(), tmp_path / "work"
    killed(folder, work, windows, 4)
    state = work / "checkpoint-4" / "optimizer.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"x")

    _, resumed = train_all(opened(folder), windows, work, course(8))

    assert resumed == 3
    assert f"{state.parent} is not used" in caplog.text


def test_the_state_of_another_training_is_not_read(pruned, windows, tmp_path, caplog):
    folder, work = pruned(), tmp_path / "work"
    killed(folder, work, windows, 2, causes={"learning_rate": 1})
    _, resumed = train_all(opened(folder), windows, work, course(8), {"learning_rate": 2})
    assert resumed == 0
    assert "it is of another training (learning_rate changed)" in caplog.text


def test_zeros_are_compared_to_the_last_one(pruned, tmp_path):
    from thanos.models import StreamedBlocks

    folder, other = pruned(), tmp_path / "other"
    model = opened(folder)
    weight = model.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        weight[0, weight[0].nonzero()[0]] = 0.0
    model.save_pretrained(other)
    found = compare_zeros(StreamedBlocks(folder), StreamedBlocks(other), (), (2, 4))
    total = summary(found)
    assert total["zeros"] == total["zeros_before"] + 1 == total["weights_of_layers"] // 2 + 1
    assert total["overfull_groups"] == 0

    with torch.no_grad():
        weight[3, (weight[3] == 0).nonzero()[0]] = 1e-6
    model.save_pretrained(other)
    with pytest.raises(RuntimeError, match=r"1 removed weights of model.layers.1.mlp.down_proj"):
        compare_zeros(StreamedBlocks(folder), StreamedBlocks(other), (), None)


def test_gradients_of_zeros_have_no_part_in_the_norm(pruned, windows):
    model = opened(pruned())
    Zeros(model.requires_grad_(True), ())
    Student(model, None, 0.0)(windows[:2])["loss"].backward()
    for layer in pruned_layers(model, ()).values():
        weight = layer.module.weight
        assert not weight.grad[weight == 0].any()
        assert weight.grad[weight != 0].any()
