"""A page that shows runs: its content, its HTML, and the server that keeps it up to date."""
