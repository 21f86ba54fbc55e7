"""What a network costs: `counting` by arithmetic, `measuring` on this machine; `matching` makes costs equal."""
