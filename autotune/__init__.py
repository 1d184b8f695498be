"""ckpt-tune: the roof. Problem loading, probing, measuring, sweeping, recommending, and the command line."""
