"""Faults that are injected for real: signals, cut sockets, full disks, stopped processes, and what becomes of them."""
