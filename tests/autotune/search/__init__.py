"""Tests of `autotune.search`."""
