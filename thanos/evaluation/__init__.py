"""What a model is worth: perplexity, zero-shot accuracy, efficiency."""
