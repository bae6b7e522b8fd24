"""Judging models: every number from a full-precision pass on what an attack returned."""
