"""The processes of a migration as one: who takes part, the flip that they make together, and its gates."""
