"""Plain lm-eval as its documentation says: its own task files with the data in place of the hub."""

import copy
import json
from pathlib import Path
from unittest import mock

import lm_eval.tasks
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TASKS = Path(lm_eval.tasks.__file__).parent
DEFINITION = """
include: {file}
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    {split}: {data}
training_split: null
validation_split: null
test_split: null
{scored}_split: {split}
"""


def write_task(folder, task, file, scored, rows):
    """Put lm-eval's definition `file` of a task into `folder`, with these rows as its data.

    `scored` is the split that the definition scores, `validation` or `test`.
    """
    data = folder / f"{task}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = DEFINITION.format(file=TASKS / file, split=scored, data=data, scored=scored)
    text += f"task: {task}\n"  # the name may be in a file that the definition includes
    (folder / f"{task}.yaml").write_text(text)


def evaluate(model, tokenizer, folder, tasks, batch_size, limit=None):
    """lm-eval's own results for tasks that lie in `folder`."""
    with mock.patch("lm_eval.evaluator.add_env_info"):  # asks pip for a second what is installed
        return simple_evaluate(
            HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size),
            tasks=tasks,
            num_fewshot=0,
            limit=limit,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        )
