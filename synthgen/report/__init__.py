"""What a dataset is, told in a minute: a page, a screen of text, JSON; and how two of them differ."""
