"""One training: `spec` says what, `module` is its Lightning side, `fit` runs it."""
