"""A study's networks tried out on images, in a browser: before and after a step, side by side."""
