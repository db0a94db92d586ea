"""Hooks: commands and webhooks that are called for a flip, a gate, a finding and a step of a ramp."""
