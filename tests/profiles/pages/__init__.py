"""Tests of `profiles.pages`."""
