"""The parametric network: `design` says what it is, `model` builds it, `layers` plugs into it, `weights` go in and out."""
