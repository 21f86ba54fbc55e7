"""Figures, one module for each kind of mark. A figure is a value: see `roadmap.plotting.style.Drawn`."""
