"""What models there are, and how to get them: catalog.json and download.py."""
