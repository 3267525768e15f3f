"""A results table: what a YAML file asks for, which code its runs depend on, and the folder that it works in."""
