import copy
import math

import pytest
from fruit import ITEMS, json_lines

from thanos.errors import UserError
from thanos.evaluation.zero_shot import zero_shot


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "zeroshot"
    folder.mkdir()
    question = {"question": "What is red?", "answerKey": "B"}
    question["choices"] = {"text": ["grass", "blood", "snow"], "label": ["A", "B", "C"]}
    rows = {
        "winogrande": {"sentence": "A _ fell.", "option1": "A", "option2": "B", "answer": "2"},
        "openbookqa": {**question, "question_stem": "Red is"},
        "boolq": {"passage": "Blood is red.", "question": "is blood red", "label": 1},
        "piqa": {"goal": "stand", "sol1": "rise", "sol2": "fall", "label": 0},
        "hellaswag": {
            "activity_label": "Sport", "ctx_a": "A man runs.", "ctx_b": "he",
            "endings": ["stops.", "flies.", "[title] sings.", "melts."], "label": "0",
        },
        "arc_easy": question,
        "arc_challenge": question,
        "rte": {"sentence1": "Blood is red.", "sentence2": "Blood is blue.", "label": 1},
    }  # fmt: skip
    for task, row in rows.items():
        (folder / f"{task}.jsonl").write_text(json_lines([row] * 3))
    return tmp_path


def test_the_numbers_are_those_of_lm_eval_run_by_hand(
    model, tokenizer, fruit, tmp_path, monkeypatch
):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)  # by hand, lm-eval looks for the data file here
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    by_hand = simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=3),
        tasks=["fruit"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
    )
    ours = zero_shot(model, tokenizer, "fruit", include_path=fruit, batch_size=3)
    expected = by_hand["results"]["fruit"]
    assert ours.accuracy == 100 * expected["acc,none"]
    assert ours.normalized_accuracy == 100 * expected["acc_norm,none"]
    assert ours.standard_error == 100 * expected["acc_stderr,none"]
    assert (ours.items, ours.version) == (7, "2.5")


def test_accuracy_is_what_scoring_each_choice_gives(model, tokenizer, fruit):
    import torch

    hits = 0
    for item in ITEMS:
        prompt = tokenizer(f"Q: {item['question']}\nA:")["input_ids"]
        scores = []
        for option in item["options"]:
            ids = torch.tensor(prompt + tokenizer(f" {option}")["input_ids"])
            with torch.no_grad():
                logprobs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            scores.append(sum(logprobs[t - 1, ids[t]].item() for t in range(len(prompt), len(ids))))
        hits += max(range(3), key=scores.__getitem__) == item["gold"]
    result = zero_shot(model, tokenizer, "fruit", include_path=fruit)
    assert 0 < hits < 7  # otherwise this test proves nothing
    accuracy = hits / 7
    assert result.accuracy == pytest.approx(100 * accuracy)
    # the standard error of a mean of n hits or misses, with n - 1
    error = math.sqrt(accuracy * (1 - accuracy) / 6)
    assert result.standard_error == pytest.approx(100 * error)


def test_data_folder_and_limit(model, tokenizer, fruit, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "fruit.jsonl").write_text(json_lines(ITEMS[:5]))
    options = {"include_path": fruit, "data_folder": data}
    assert zero_shot(model, tokenizer, "fruit", **options).items == 5
    assert zero_shot(model, tokenizer, "fruit", limit=2, **options).items == 2


def test_the_papers_tasks_read_a_mirror(model, tokenizer, mirror):
    names = ["winogrande", "openbookqa", "boolq", "piqa", "hellaswag", "arc_easy", "arc_challenge"]
    results = {name: zero_shot(model, tokenizer, name, mirror=mirror) for name in (*names, "rte")}
    assert {task.items for task in results.values()} == {3}
    # Three equal items: all right or all wrong.
    assert {task.accuracy for task in results.values()} <= {0, 100}
    versions = {name: task.version for name, task in results.items()}
    assert versions["boolq"] == "2.0"
    assert versions["piqa"] == "1.0"


def test_it_says_nothing_and_leaves_nothing_behind(model, tokenizer, mirror, capsys, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", mirror / "cache")
    monkeypatch.chdir(mirror)
    before = sorted(mirror.rglob("*"))
    assert tokenizer.pad_token is None
    for task in ("hellaswag", "boolq"):
        zero_shot(model, tokenizer, task, mirror=mirror)
    assert capsys.readouterr() == ("", "")
    assert sorted(mirror.rglob("*")) == before
    assert tokenizer.pad_token is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("winogrand", "unknown task 'winogrand'; known are winogrande, openbookqa, "),
        # lm-eval has a task of which this is a part of the name, and none called so.
        ("gsm8", "unknown task 'gsm8'; known are .* and every other task or group of lm-eval"),
        (
            "piqa",
            "has no zeroshot/piqa.jsonl or zeroshot/piqa_valid_rebuilt.jsonl for task 'piqa'",
        ),
    ],
)
def test_what_cannot_be_scored(model, tokenizer, tmp_path, task, message):
    with pytest.raises(UserError, match=message):
        zero_shot(model, tokenizer, task, mirror=tmp_path)


def test_no_network_and_no_mirror(model, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.config.HF_MODULES_CACHE", tmp_path)
    with pytest.raises(UserError, match=r"piqa could not be .* zeroshot/piqa.jsonl"):
        zero_shot(model, tokenizer, "piqa")


def test_damaged_local_data(model, tokenizer, fruit):
    (fruit / "fruit.jsonl").write_text('{"question": "a"}\n{"quest')
    with pytest.raises(UserError, match=r"fruit.jsonl, line 2: not JSON"):
        zero_shot(model, tokenizer, "fruit", include_path=fruit)
    (fruit / "fruit.jsonl").unlink()
    with pytest.raises(UserError, match=r"fruit.jsonl does not exist"):
        zero_shot(model, tokenizer, "fruit", include_path=fruit)


@pytest.mark.slow
def test_any_task_or_group_of_lm_eval_by_its_name(tokenizer, mirror):
    """One that generates, a group of groups, and a tag, which has no metrics of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from thanos.evaluation.task_loading import definitions

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=2048, **sizes
    )
    model = LlamaForCausalLM(config).eval()
    subjects = [task["task"] for task in definitions("mmlu")]
    question = {"question": "What is red?", "choices": ["a", "b", "c", "d"]}
    for number, subject in enumerate(subjects):
        rows = [{**question, "answer": k % 4} for k in range(2 + number % 2)]
        (mirror / "zeroshot" / f"{subject}.jsonl").write_text(json_lines(rows))
    sums = [{"question": "One and one?", "answer": "They are two.\n#### 2"}] * 2
    (mirror / "zeroshot" / "gsm8k.jsonl").write_text(json_lines(sums))

    mmlu, gsm8k, arc = (
        zero_shot(model, tokenizer, task, mirror=mirror) for task in ("mmlu", "gsm8k", "ai2_arc")
    )

    assert len(subjects) == 57
    assert mmlu.items == 57 * 2 + 28
    assert {"mmlu_stem", *subjects} <= mmlu.subtasks.keys()
    leaves = [mmlu.subtasks[subject] for subject in subjects]
    hits = sum(leaf.items * leaf.accuracy for leaf in leaves)
    assert mmlu.accuracy == pytest.approx(hits / mmlu.items)
    assert list(gsm8k.others) == ["exact_match (strict-match)", "exact_match (flexible-extract)"]
    assert (gsm8k.items, gsm8k.accuracy) == (2, None)
    assert arc.accuracy is None
    assert arc.subtasks.keys() == {"arc_easy", "arc_challenge"}
    assert arc.items == 6
