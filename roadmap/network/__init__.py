"""The parametric network: `design` says what it is, `model` builds it, `weights` carries weights in and out."""
