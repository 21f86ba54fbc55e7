"""Sets of runs that are meant to be compared: `spec` says what is asked, `store` keeps results, `runner` makes them."""
