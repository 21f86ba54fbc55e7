"""The parametric network: `design` says what it is, `model` builds it, `layers` plugs into it; and its `weights`."""
