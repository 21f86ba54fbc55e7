"""A planned study, carried out: prepared, trained on an engine, shown while it runs."""
