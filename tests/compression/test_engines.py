"""What else opens a checkpoint: this transformers, another one, llama.cpp's converter.

Another one is used where there is one: set THANOS_TEST_PYTHON to the interpreter that has it.
"""

import os
import sys
from pathlib import Path

import pytest
from gguf_file import write_gguf

from thanos.compression.compact_folders import narrow_folder
from thanos.errors import UserError
from thanos.models import prune_model
from thanos.models.gguf import dequantize
from thanos.pruning import prune_weight
from thanos.stages import engines


@pytest.fixture
def folders(families, tmp_path) -> tuple[Path, Path]:
    """A pruned checkpoint and its compact form."""
    model = families["llama"](kv_heads=2)

    def prune_layer(weight, statistics, **given):
        return prune_weight(weight, statistics, "magnitude", "heads-neurons:0.4", **given)

    prune_model(model, None, prune_layer, statistics="none", units=True)
    model.save_pretrained(tmp_path / "pruned")
    narrow_folder(tmp_path / "pruned", tmp_path / "compact")
    return tmp_path / "pruned", tmp_path / "compact"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["engines", *map(str, arguments)])
    engines.main()


def test_both_are_opened_by_an_interpreter_without_thanos(folders, monkeypatch, capsys):
    pruned, compact = folders
    monkeypatch.setenv("PYTHONPATH", "a folder that the engine must not see")
    others = [] if (other := os.environ.get("THANOS_TEST_PYTHON")) is None else ["--python", other]

    run(monkeypatch, compact, "--against", pruned, *others)

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(others) // 2
    assert all("the same logits within" in line for line in lines)


@pytest.mark.slow
def test_other_logits_and_other_faults_are_one_line(folders, monkeypatch, tmp_path, families):
    pruned, compact = folders
    families["llama"](kv_heads=2).save_pretrained(tmp_path / "dense")
    with pytest.raises(UserError, match=r"transformers .* gives other logits for .*compact"):
        run(monkeypatch, compact, "--against", tmp_path / "dense")
    with pytest.raises(UserError, match="absent is no model folder"):
        run(monkeypatch, tmp_path / "absent")
    with pytest.raises(UserError, match="nowhere/python cannot be run"):
        list(engines.check_engines(pruned, pruned, ["nowhere/python"], None))
    config = compact / "config.json"
    config.write_text(
        config.read_text().replace('"num_key_value_heads": 1', '"num_key_value_heads": 2')
    )
    with pytest.raises(UserError, match="does not open it"):
        run(monkeypatch, compact, "--against", pruned)


@pytest.mark.slow
def test_what_the_converter_of_llama_cpp_makes_is_opened(tmp_path, monkeypatch):
    """In its place a script that gives a file whose weights are nearly those of the folder."""
    write_gguf(tmp_path / "nearly.gguf")
    dequantize(tmp_path / "nearly.gguf", tmp_path / "model")
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(
        "import shutil, sys\n"
        "assert sys.argv[2::2] == ['--outfile', '--outtype'], sys.argv\n"
        f"shutil.copyfile({str(tmp_path / 'nearly.gguf')!r}, sys.argv[3])\n"
    )
    with pytest.raises(UserError, match=r"transformers .* gives other logits"):
        run(monkeypatch, tmp_path / "model", "--converter", script)
    script.write_text("raise SystemExit('no such architecture')")
    with pytest.raises(UserError, match=r"convert_hf_to_gguf\.py does not open it: no such arch"):
        run(monkeypatch, tmp_path / "model", "--converter", script)
