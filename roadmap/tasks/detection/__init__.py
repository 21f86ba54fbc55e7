"""Detection with torch: the `network` and its `cascade` of heads, the `meter` of a test, and the `runtime`."""
