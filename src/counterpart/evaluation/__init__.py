"""Judges models: every number comes from a full-precision pass on the images that an attack returned."""
