"""The collection and its verbs."""
