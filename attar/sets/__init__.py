"""Distilled sets on disk, their images, the folders of other codes, near copies."""
