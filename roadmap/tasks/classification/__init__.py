"""Image classification with torch."""
