"""What a study found: tables, statistics and figures, computed from its stored results and from nothing else."""
