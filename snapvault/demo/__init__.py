"""``python -m snapvault.demo``: the main job on real files, and every promise checked by somebody else."""
