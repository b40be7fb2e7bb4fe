"""Numbers that no change of names, layout or libraries may move."""
