"""The house's rules: imports point one way, and start-up pays only for what a command needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "thanos"
# stages -> workflow -> config -> identity -> evaluation, models, data -> pruning
ALLOWED = {
    "accelerator": set(),
    "errors": set(),
    "paths": set(),
    "layout": set(),
    "threads": set(),
    "content": {"threads"},
    "untrusted": set(),
    "artifacts": {"content", "errors", "untrusted"},
    "pruning": {"accelerator"},
    "testbed": set(),
    "timing": {"accelerator", "errors", "pruning"},
    "models": {
        *("accelerator", "pruning", "artifacts", "content", "errors", "threads", "untrusted"),
    },
    "data": {"errors", "testbed", "untrusted"},
    "recovery": {"accelerator", "artifacts", "errors", "models"},
    "compression": {"models", "artifacts", "content", "errors", "untrusted"},
    "evaluation": {"accelerator", "compression", "data", "errors", "models", "untrusted"},
    "reporting": {"artifacts", "errors", "layout", "pruning"},
    "regression": {"artifacts", "errors", "reporting"},
    "tracking": {"errors", "reporting"},
    "identity": {
        *("artifacts", "content", "data", "errors", "evaluation", "models"),
        *("paths", "pruning", "testbed"),
    },
    "opening": {"artifacts", "content", "data", "errors", "identity", "models"},
    "layer_patterns": {"errors", "identity", "models", "pruning"},
    "pruner": {"errors", "identity", "layer_patterns", "models", "opening", "pruning"},
    "provenance": {"content", "identity", "paths"},
    "command": {"errors", "identity", "pruning"},
    "config": {
        *("content", "data", "errors", "evaluation", "identity", "layout", "models", "paths"),
        "pruning",
    },
    "workflow": {
        *("config", "identity", "artifacts", "command", "content", "data", "errors"),
        "evaluation",
        *("layout", "models", "opening", "paths", "pruning", "reporting", "testbed"),
    },
    "device": {"accelerator", "errors", "workflow"},
}
ABOVE_ALL = {"stages", "__main__", "call", "cli"}


def imported(file):
    """All that a module imports, by full name."""
    package = ("thanos", *file.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: -node.level], node.module] if node.level else [node.module]
            module = ".".join(filter(None, base))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_imported(file):
    """The parts of thanos that a module imports, outside its own."""
    part = part_of(file)
    return {name.split(".")[1] for name in imported(file) if name.startswith("thanos.")} - {part}


def part_of(file):
    return file.relative_to(ROOT).with_suffix("").parts[0]


def test_every_part_has_its_place():
    assert {part_of(file) for file in ROOT.rglob("*.py")} - {"__init__"} == {*ALLOWED, *ABOVE_ALL}


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    for file in ROOT.rglob("*.py"):
        if part_of(file) == part:
            assert parts_imported(file) <= ALLOWED[part], file


def test_nothing_is_built_on_stages():
    built_on = [file for file in ROOT.rglob("*.py") if "stages" in parts_imported(file)]
    assert sorted(part_of(file) for file in built_on) == ["call", "cli"]
    # The warm process loads by name what it is asked for.
    said = {
        file for file in ROOT.rglob("*.py") if 'import_module(f"thanos.stages.' in file.read_text()
    }
    assert {file.relative_to(ROOT).as_posix() for file in said} == {
        "stages/__main__.py",
        "workflow/warm.py",
    }


def test_stages_are_stages():
    for file in (ROOT / "stages").glob("*.py"):
        if file.stem not in ("__init__", "__main__"):
            functions = {n.name for n in ast.parse(file.read_text()).body if hasattr(n, "name")}
            assert "main" in functions, file


def test_the_mathematics_imports_only_torch_and_scipy():
    for file in (ROOT / "pruning").glob("*.py"):
        names = {name.split(".")[0] for name in imported(file)}
        assert names <= {"thanos", "torch", "scipy", *sys.stdlib_module_names}, file


def asks_what_a_device_is(tree):
    """Whether code looks at a kind of device, or at what torch says of one, by any of its names."""
    kinds = {"cpu", "cuda", "hip", "xpu", "mps"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            named = node.attr.removeprefix("is_")
            if named in kinds - {"cpu"} | {"accelerator"} or node.attr == "is_cpu":
                return True
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            values = {side.value for side in sides if isinstance(side, ast.Constant)}
            if values & kinds and any(getattr(side, "attr", "") == "type" for side in sides):
                return True
    return False


@pytest.mark.parametrize(
    "code",
    [
        "x.is_cuda",
        "torch.cuda.synchronize()",
        "torch.accelerator.device_count()",
        "torch.backends.mps.is_available()",
        "x.device.type != 'cpu'",
        "'cuda' == device.type",
    ],
)
def test_a_question_about_devices_is_recognised(code):
    assert asks_what_a_device_is(ast.parse(code))


def test_one_module_knows_what_an_accelerator_is():
    asking = {
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if asks_what_a_device_is(ast.parse(file.read_text()))
    }
    assert asking == {"accelerator.py"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("thanos.stages.list_runs", ["torch", "transformers", "pandas"]),
        ("thanos.stages.collect", ["torch", "transformers", "matplotlib", "wandb"]),
        ("thanos.stages.tabulate", ["torch", "transformers", "matplotlib", "wandb"]),
        ("thanos.stages.plot", ["torch", "transformers", "wandb"]),
        (
            "thanos.stages.prune",
            ["lm_eval", "datasets", "pandas", "matplotlib", "wandb", "hydra", "omegaconf"],
        ),
        (
            "thanos.stages.evaluate",
            ["lm_eval", "datasets", "pandas", "matplotlib", "wandb", "hydra", "omegaconf"],
        ),
        (
            "thanos.stages.recover",
            ["lm_eval", "matplotlib", "wandb", "hydra", "omegaconf"],  # others with the Trainer
        ),
        ("thanos.stages.run", ["torch", "transformers", "pandas"]),
    ],
)
def test_a_stage_imports_only_what_it_needs(module, unwanted):
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    # The last line: with WANDB_MODE=offline transformers' Trainer prints one before it.
    assert result.stdout.splitlines()[-1] == "[]"
