"""``python -m roadmap``."""

from roadmap.cli import main

main()
