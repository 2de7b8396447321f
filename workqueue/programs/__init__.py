"""For programs: what every command line of this project is made of. Imported by the CLIs only."""
