"""What the rules import: suites, what they are made of, resources, GPUs and the warm process."""
