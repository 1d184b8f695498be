"""Tests of `autotune.model`."""
