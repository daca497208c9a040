"""Original releases become the columns that lm-eval's templates read."""

import json
from pathlib import Path

import pytest

from thanos.errors import UserError
from thanos.evaluation.benchmarks import DEFINITIONS, mirrored_rows, task_file
from thanos.evaluation.task_loading import Places, load_tasks
from thanos.identity import EvaluationSpec, ModelSpec, Place
from thanos.identity.fingerprints import fingerprint

ARC = {
    "id": "x",
    "question": {
        "stem": "What is red?",
        "choices": [{"text": "grass", "label": "A"}, {"text": "blood", "label": "B"}],
    },
    "answerKey": "B",
}
CHOICES = {"text": ["grass", "blood"], "label": ["A", "B"]}


def put(mirror, name, text):
    (mirror / "zeroshot").mkdir(exist_ok=True)
    (mirror / "zeroshot" / name).write_text(text)


@pytest.mark.parametrize("task", ["../piqa", "a/../../piqa", "/../piqa", "a\0b"])
def test_a_task_leads_nowhere_out_of_its_folder(tmp_path, task):
    (tmp_path / "piqa.jsonl").write_text("{}")
    (tmp_path / "piqa.yaml").write_text("task: piqa")
    place = Place(mirror=str(tmp_path / "mirror"))
    for find in (
        lambda: task_file(task, tmp_path / "mirror"),
        lambda: mirrored_rows(task, tmp_path / "mirror"),
        lambda: load_tasks(task, Places(include_path=tmp_path / "tasks")),
        lambda: fingerprint(EvaluationSpec(ModelSpec("a/b"), tasks=(task,)), place),
    ):
        with pytest.raises(UserError, match=r"evaluation\.tasks: .* names no task"):
            find()


@pytest.mark.parametrize(
    ("task", "name", "original", "columns"),
    [
        (
            "arc_easy", "ARC-Easy-Test.jsonl", ARC,
            {"question": "What is red?", "choices": CHOICES, "answerKey": "B"},
        ),
        (
            "openbookqa", "openbookqa.jsonl", ARC,
            {"question_stem": "What is red?", "choices": CHOICES, "answerKey": "B"},
        ),
        (
            "boolq", "boolq_val.jsonl", {"passage": "p", "question": "q", "label": True, "idx": 0},
            {"passage": "p", "question": "q", "label": 1},
        ),
        (
            "boolq", "boolq.jsonl", {"passage": "p", "question": "q", "answer": False},
            {"passage": "p", "question": "q", "label": 0},
        ),
        (
            "boolq", "boolq_val.jsonl", {"passage": "p", "question": "q", "label": "false"},
            {"passage": "p", "question": "q", "label": 0},
        ),
        (
            "rte", "rte_val.jsonl", {"premise": "p", "hypothesis": "h", "label": "not_entailment"},
            {"sentence1": "p", "sentence2": "h", "label": 1},
        ),
    ],
)  # fmt: skip
def test_an_original_release_gets_the_hubs_columns(tmp_path, task, name, original, columns):
    put(tmp_path, name, json.dumps(original) + "\n")
    assert mirrored_rows(task, tmp_path) == [columns]
    assert task_file(task, tmp_path) == tmp_path / "zeroshot" / name
    put(tmp_path, f"{task}.jsonl", json.dumps(columns) + "\n")  # and those stay as they are
    assert mirrored_rows(task, tmp_path) == [columns]
    assert task_file(task, tmp_path) == tmp_path / "zeroshot" / f"{task}.jsonl"
    assert task_file("winogrande", tmp_path) is task_file("unheard_of", tmp_path) is None


def test_the_official_table_of_openbookqa(tmp_path):
    choices = "(A) make (calls) (B) quit eating (C) buy less (D) have lunch"
    put(
        tmp_path,
        "openbookqa_test.tsv",
        f"ID\tStem\tChoices\tComplete\tKey\n8-343\tTo save money\t{choices}\tall of it\tB\n",
    )
    assert mirrored_rows("openbookqa", tmp_path) == [
        {
            "question_stem": "To save money",
            "choices": {
                "text": ["make (calls)", "quit eating", "buy less", "have lunch"],
                "label": ["A", "B", "C", "D"],
            },
            "answerKey": "B",
        }
    ]


def test_the_raw_test_split_of_wikitext_is_cut_at_the_articles(tmp_path):
    first = " = One = \n \n Text = here . \n \n = = Part = = \n \n More . \n "
    second = " = Two = \n \n Text . \n"
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2" / "wiki.test.raw").write_text(f" \n{first}\n{second}")
    assert mirrored_rows("wikitext", tmp_path) == [{"page": first}, {"page": second}]


def test_a_row_in_neither_form(tmp_path):
    put(tmp_path, "rte.jsonl", json.dumps({"premise": "p", "hypothesis": "h", "label": "maybe"}))
    with pytest.raises(UserError, match=r"rte.jsonl: a row is neither in the hub's columns nor"):
        mirrored_rows("rte", tmp_path)


def test_the_definitions_are_where_lm_eval_keeps_them():
    import lm_eval

    folder = Path(lm_eval.__file__).parent / "tasks"
    assert [path for path in DEFINITIONS.values() if not (folder / path).is_file()] == []
