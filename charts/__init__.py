"""What is generated of the Helm chart: `python -m charts` writes it, and a test holds the committed files to it."""
