"""``python -m xengt_dm``."""

from xengt_dm.cli import main

main(prog_name="xengt-dm")
