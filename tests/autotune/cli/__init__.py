"""Tests of `autotune.cli`."""
