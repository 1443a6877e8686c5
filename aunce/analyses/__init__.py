"""Computations that notebooks show and that need no run of a study."""
