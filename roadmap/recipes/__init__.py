"""Training settings as data: `recipe` says what a recipe may hold; each YAML file here is one."""
