"""What the transfers to dense tasks share, and transfers of what was pretrained on the embedded textures."""
