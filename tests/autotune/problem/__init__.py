"""Tests of `autotune.problem`."""
