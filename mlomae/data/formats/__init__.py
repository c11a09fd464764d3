"""Layouts and files that several data sets share: folders, COCO's annotations, MATLAB files."""
