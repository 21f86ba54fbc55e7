"""Runs on disk, shared by all studies, and the folder of one study."""
