"""Trained networks for other programs: as a folder that timm and the Hugging Face hub open, and as recorded graphs."""
