"""What a network costs: `cost` (the value), `counting`, by `tracing` where it is not shipped, `measuring` on this machine; `matching` makes costs equal."""
