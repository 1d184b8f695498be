"""Tests of `autotune.choosing`."""
