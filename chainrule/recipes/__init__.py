"""The recipes that come with chainrule, one TOML file each."""
