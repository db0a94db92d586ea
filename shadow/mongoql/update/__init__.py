"""Updates: operators, replacements, and pipelines that update."""
