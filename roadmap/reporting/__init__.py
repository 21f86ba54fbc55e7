"""The report of a study: one page that needs nothing but a browser. `content` says what is on it, as plain data,
`figures` makes drawings of it, and `page` writes it down."""
