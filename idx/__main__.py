"""``python -m idx``."""

from idx.cli import main

main()
