"""What a network costs: `counting` by arithmetic, `measuring` on this machine."""
