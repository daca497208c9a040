"""Whose fingerprint a change of the source changes: a copy of the project is edited and asked."""

import shutil
from pathlib import Path

import pytest

from thanos.config import RunBuilder, resolve
from thanos.identity import EvaluationSpec, Place, code, fingerprints
from thanos.identity.fingerprints import fingerprint, stage_fingerprint

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos")
REPORTING = ("collect", "tabulate", "plot", "report")


@pytest.fixture(scope="module")
def specs():
    runs = {
        method: RunBuilder().run(resolve([f"method={method}", "pattern=2:4"])) for method in METHODS
    }
    found = {method: run.pruning for method, run in runs.items()}
    evaluation = runs["thanos"].evaluation
    corpus, task, size = evaluation.parts()
    found |= {"corpus": corpus, "task": task, "size": size, "windows": evaluation.windows[0]}
    return {**found, "calibration": runs["thanos"].pruning.calibration}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the package, without the testbed's weights."""
    copy = tmp_path_factory.mktemp("copy") / "thanos"
    shutil.copytree(
        code.PACKAGE, copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    return copy


@pytest.fixture(scope="module")
def before(copied, specs):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(code, "PACKAGE", copied)
        forget()
        return asked(specs)


@pytest.fixture
def package(copied, monkeypatch):
    """The copy, whose source is asked from now on, and as it was afterwards."""
    content = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    monkeypatch.setattr(code, "PACKAGE", copied)
    forget()
    yield copied
    for file in filter(Path.is_file, copied.rglob("*")):
        if file not in content:
            file.unlink()
        elif file.read_bytes() != content[file]:
            file.write_bytes(content[file])
    forget()


def forget() -> None:
    code._source.cache_clear()
    code._file.cache_clear()


def asked(specs) -> dict[str, object]:
    found = {name: fingerprint(spec, Place()).code for name, spec in specs.items()}
    found |= {stage: stage_fingerprint(stage).code for stage in REPORTING}
    return {**found, "items": stage_fingerprint("continuations").code}


def edit(package: Path, module: str, old: str, new: str) -> None:
    """Replace a text of a module, which must be there once."""
    file = package / module
    assert file.read_text().count(old) == 1, (module, old)
    file.write_text(file.read_text().replace(old, new))


def changed(before, specs) -> set[str]:
    """What has another fingerprint now."""
    after = asked(specs)
    return {name for name in before if before[name] != after[name]}


UNUSED = "_UNUSED = 1\n\n\n"
EVALUATION = {"corpus", "task"}
CHANGES = [
    # Comments, docstrings and layout change nothing; a statement does.
    ("pruning/updates.py", "    return direct\n", "    # why\n    return (direct)\n", set()),
    ("pruning/updates.py", "Thanos' updates:", "The updates of Thanos:", set()),
    ("pruning/prune.py", "class PruningResult:", "class PruningResult:\n    '''Another.'''", set()),
    ("pruning/updates.py", "(Lambda, A, alpha=-1)", "(Lambda, A, alpha=1)", {"thanos"}),
    (
        "pruning/conjugate_gradient.py",
        "def solve_masked(",
        f"{UNUSED}def solve_masked(",
        {"thanos"},
    ),
    ("pruning/sequential.py", "error, alpha=-1)", "error, alpha=1)", {"sparsegpt"}),
    (
        "pruning/factorization.py",
        "def cholesky_damped(",
        f"{UNUSED}def cholesky_damped(",
        {"sparsegpt", "thanos"},
    ),
    ("pruning/refinement.py", "def refine(", f"{UNUSED}def refine(", set()),
    (
        "pruning/selection.py",
        "def smallest_per_group(",
        f"{UNUSED}def smallest_per_group(",
        set(METHODS),
    ),
    (
        "pruning/statistics.py",
        "class InputStatistics",
        f"{UNUSED}class InputStatistics",
        set(METHODS),
    ),
    (
        "models/sequential.py",
        "def _checked_windows(",
        f"{UNUSED}def _checked_windows(",
        set(METHODS),
    ),
    (
        "models/streaming.py",
        "class StreamedBlocks",
        f"{UNUSED}class StreamedBlocks",
        {
            *METHODS,
            *EVALUATION,
            "size",
        },
    ),
    (
        "models/forward.py",
        "from .replay import",
        f"{UNUSED}from .replay import",
        {"corpus", "task"},
    ),
    ("evaluation/perplexity.py", "ahead = 1", "ahead = 2", {"corpus"}),
    ("evaluation/zero_shot.py", "fewshot_seed(0)", "fewshot_seed(1)", {"task"}),
    ("reporting/frame.py", "def to_csv(", f"{UNUSED}def to_csv(", set(REPORTING)),
    (
        "reporting/tables.py",
        "def main_table(",
        f"{UNUSED}def main_table(",
        {"tabulate", "report"},
    ),
    # Templates are part of the package that they lie in.
    (
        "reporting/html/report.html.j2",
        "<h2>Every run</h2>",
        "<h2>Runs</h2>",
        {"tabulate", "report"},
    ),
    ("reporting/figures.py", "def main_figure(", f"{UNUSED}def main_figure(", {"plot"}),
    ("reporting/conditions.py", "_NAMED = 3", "_NAMED = 4", {"collect"}),
    ("testbed/continuations.py", "CHOICES = 4", "CHOICES = 5", {"items", "task", "corpus", "size"}),
    # These say when, where and how something is made, not what.
    ("provenance.py", "def source_revision(", f"{UNUSED}def source_revision(", set()),
    ("workflow/resources.py", "_PROGRAM = 800", "_PROGRAM = 900", set()),
    ("config/usage.py", "def unused_keys(", f"{UNUSED}def unused_keys(", set()),
    ("config/schema.py", "seed: int = 0", "seed: int = 1", set()),
    # A package's `__init__` passes names on: a new one changes nothing.
    ("models/__init__.py", '    "BlockSource",\n', '    "BlockSource",\n    "Another",\n', set()),
]


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    CHANGES,
    ids=[f"{n}-{c[0]}" for n, c in enumerate(CHANGES)],
)
def test_a_change_of_the_source(before, package, specs, module, old, new, expected):
    edit(package, module, old, new)
    assert changed(before, specs) == expected


def test_a_new_import_is_followed(before, package, specs):
    """Also one inside a function, relative or not, through a package that passes the name on."""
    (package / "pruning" / "fresh.py").write_text("VALUE = 1\n")
    line = "        from ..pruning.fresh import VALUE\n\n"
    loop = "        losses.append(loss)\n"
    edit(package, "evaluation/perplexity.py", loop, f"{line}{loop}")
    assert changed(before, specs) == {"corpus"}
    assert "thanos.pruning.fresh" in fingerprint(specs["corpus"], Place()).code
    (package / "pruning" / "fresh.py").write_text("VALUE = 2\n")
    one = fingerprint(specs["corpus"], Place()).code
    forget()
    other = fingerprint(specs["corpus"], Place()).code
    assert {name for name in other if one[name] != other[name]} == {"thanos.pruning.fresh"}


def test_every_module_that_a_stage_loads_is_in_its_fingerprint():
    """By what Python itself imports, in a process of its own; the code names what is apart."""
    import subprocess
    import sys

    for stage in ("evaluate", "collect"):
        program = f"import sys, thanos.stages.{stage}; print(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        known = code.source_hashes(f"thanos.stages.{stage}")
        missing = {
            name
            for name in loaded
            if name.startswith("thanos.")
            and name not in known
            and not code._is_bookkeeping(name)
            and code._file(name).name != "__init__.py"
        }
        reached_by_bookkeeping = {name for name in missing if name in _behind_bookkeeping()}
        assert missing == reached_by_bookkeeping, stage


def _behind_bookkeeping() -> set[str]:
    """What only the bookkeeping modules import, for themselves."""
    found: set[str] = set()
    for part in code.BOOKKEEPING:
        path = code.PACKAGE.joinpath(*part.split(".")[1:])
        files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            name = ".".join((code.ROOT, *file.relative_to(code.PACKAGE).with_suffix("").parts))
            for module in code._source(name.removesuffix(".__init__")).imports:
                found |= (
                    code.source_hashes(module).keys() if not code._is_bookkeeping(module) else set()
                )
    return found


def test_libraries_that_numbers_depend_on_are_in_the_fingerprint(specs, monkeypatch):
    found = {name: fingerprint(spec, Place()).libraries for name, spec in specs.items()}
    assert found["thanos"].keys() == {"numpy", "safetensors", "torch", "transformers"}
    assert found["task"].keys() >= {"lm-eval", "datasets", "torch"}
    # The docstrings are those of the installed packages.
    assert found["calibration"].keys() >= {"tokenizers", "transformers", "scipy", "scikit-learn"}
    monkeypatch.setattr(fingerprints, "version", lambda name: "99.0+cpu")
    fingerprints._versions.cache_clear()
    after = fingerprint(specs["thanos"], Place())
    fingerprints._versions.cache_clear()
    assert set(after.libraries.values()) == {"99.0"}
    recorded = {"code": after.code, "libraries": found["thanos"], "inputs": {}}
    assert after.differences(recorded) == ["numpy", "safetensors", "torch", "transformers"]


def test_differences_name_what_changed_and_forgive_inputs_that_only_the_record_has():
    today = fingerprints.Fingerprint({"a": "1", "b": "2"}, {"torch": "2"}, {"text": "x"})
    same = {
        "code": {"a": "1", "b": "2"},
        "libraries": {"torch": "2"},
        "inputs": {"text": "x", "more": "y"},
    }
    assert today.differences(same) == []
    assert today.differences({**same, "code": {"a": "1", "c": "3"}}) == ["b", "c"]
    assert today.differences({**same, "inputs": {}}) == ["text"]
    assert today.differences({}) == ["a", "b", "torch", "text"]


def test_parts_of_an_evaluation_have_code_of_their_own(specs):
    parts = {name: fingerprint(specs[name], Place()).code for name in ("corpus", "task", "size")}
    assert "thanos.evaluation.perplexity" in parts["corpus"].keys() - parts["task"].keys()
    assert "thanos.evaluation.zero_shot" in parts["task"].keys() - parts["corpus"].keys()
    assert isinstance(specs["size"], EvaluationSpec)
