"""One file for each group of commands: what a command does, without what typer needs to know of it."""
