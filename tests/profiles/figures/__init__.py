"""Tests of `profiles.figures`."""
