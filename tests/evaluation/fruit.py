"""A small multiple-choice task in lm-eval's YAML, with its items."""

import json

ITEMS = [
    {"question": f"{word} and", "options": [word, "nothing", word[::-1]], "gold": i % 3}
    for i, word in enumerate(["apples", "pears", "plums", "figs", "limes", "dates", "kiwis"])
]
TASK = """
task: fruit
dataset_path: json
dataset_kwargs:
  data_files:
    test: fruit.jsonl
output_type: multiple_choice
test_split: test
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: options
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 2.5
"""


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)
