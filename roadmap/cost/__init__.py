"""What a network costs: `cost` is the value, `counting` and `measuring` find it, `matching` makes costs equal."""
