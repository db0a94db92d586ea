"""What is looked at in settings besides their types: names, sources, YAML, contradictions."""
