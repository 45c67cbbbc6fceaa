"""The explorer: one question under one model, or two side by side, as a page that answers when it is touched."""
