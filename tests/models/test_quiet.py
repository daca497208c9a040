from transformers.utils import logging

from thanos.models import load_model, save_checkpoint
from thanos.models.quiet import quiet


def test_saving_and_loading_say_nothing(tiny, tmp_path, capfd):
    model = tiny("llama")
    capfd.readouterr()

    save_checkpoint(model, None, tmp_path)
    load_model(tmp_path)

    assert capfd.readouterr() == ("", "")


def test_settings_are_put_back():
    verbosity = logging.get_verbosity()

    with quiet():
        assert not logging.is_progress_bar_enabled()

    assert logging.get_verbosity() == verbosity
    assert logging.is_progress_bar_enabled()
