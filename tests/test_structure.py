"""The house's rules: imports point one way, and start-up pays only for what a command needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "thanos"
# stages -> evaluation, reporting, models, data -> pruning
ALLOWED = {
    "pruning": set(),
    "models": {"pruning", "artifacts", "errors"},
    "data": {"errors", "testbed"},
    "evaluation": {"compression", "data", "models", "errors"},
    "reporting": {"artifacts", "errors"},
    "regression": {"artifacts", "errors", "reporting"},
    "compression": {"models", "artifacts", "errors"},
    "testbed": set(),
    "timing": {"errors", "pruning"},
}


def imported(file):
    """The parts of thanos that a module imports, outside its own package."""
    package = file.relative_to(ROOT).parts[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        elif isinstance(node, ast.ImportFrom) and node.level == 2:
            names = [f"thanos.{node.module}" if node.module else "thanos"]
        found |= {name.split(".")[1] for name in names if name.startswith("thanos.")}
    return found - {package}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    for file in (ROOT / package).rglob("*.py"):
        assert imported(file) <= ALLOWED[package], file


def test_the_mathematics_imports_only_torch():
    for file in (ROOT / "pruning").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
                assert names <= {"torch", *sys.stdlib_module_names}, file


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("thanos.stages.configure", ["torch", "transformers", "pandas"]),
        ("thanos.stages.collect", ["torch", "transformers", "matplotlib", "wandb"]),
        ("thanos.stages.tabulate", ["torch", "transformers", "matplotlib", "wandb"]),
        ("thanos.stages.plot", ["torch", "transformers", "wandb"]),
        ("thanos.stages.prune", ["lm_eval", "datasets", "pandas", "matplotlib", "wandb"]),
        ("thanos.stages.run", ["torch", "transformers", "pandas"]),
    ],
)
def test_a_stage_imports_only_what_it_needs(module, unwanted):
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
