"""What is asked for, and the runs that answer it. Needs no torch."""
