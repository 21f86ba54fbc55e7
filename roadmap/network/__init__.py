"""The parametric network: `design` says what it is, `model` builds it, `layers` plugs in, `weights` go in and out."""
