"""How long pruning takes and what memory it needs, beside the published formulations."""
