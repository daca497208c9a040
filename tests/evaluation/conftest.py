import pytest
import torch
from fruit import ITEMS, TASK, json_lines
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tokenizer():
    """One token per byte; id 0 ends a text."""
    alphabet = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_only = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<|end|>")


@pytest.fixture(scope="session")
def model(tokenizer):
    """A random decoder; its large weights make it prefer some answers clearly."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def dense_folder(model, tokenizer, tmp_path):
    """The random model in half precision, on disk."""
    model.half().save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    model.float()
    return tmp_path / "dense"


@pytest.fixture
def fruit(tmp_path):
    (tmp_path / "fruit.yaml").write_text(TASK)
    (tmp_path / "fruit.jsonl").write_text(json_lines(ITEMS))
    return tmp_path
