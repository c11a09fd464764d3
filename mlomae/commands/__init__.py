"""Subcommands of `mlomae`, a module for each kind; `mlomae.cli` adds them to its parser."""
