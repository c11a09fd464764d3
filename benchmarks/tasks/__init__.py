"""The tasks that backbones are transferred to, one folder each."""
