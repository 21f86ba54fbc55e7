"""Semantic segmentation with torch."""
