"""COCO's format: annotation files, and the masks in them."""
