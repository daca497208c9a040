from transformers.utils import logging

from thanos.models import copy_checkpoint, load_model
from thanos.models.quiet import quiet


def test_copying_and_loading_say_nothing(tiny, tmp_path, capfd):
    tiny("llama").save_pretrained(tmp_path / "source")
    (tmp_path / "copy").mkdir()
    capfd.readouterr()

    copy_checkpoint(tmp_path / "source", {}, tmp_path / "copy")
    load_model(tmp_path / "copy")

    assert capfd.readouterr() == ("", "")


def test_settings_are_put_back():
    verbosity = logging.get_verbosity()

    with quiet():
        assert not logging.is_progress_bar_enabled()

    assert logging.get_verbosity() == verbosity
    assert logging.is_progress_bar_enabled()
