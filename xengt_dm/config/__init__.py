"""What an operator can set: one table of keys, and the files and options that give them values."""
