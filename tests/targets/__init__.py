"""Our promises, compiled for devices that are not here; skipped by name where the compilers are not installed."""
