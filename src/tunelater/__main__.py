"""The command `tunelater`, and `python -m tunelater`."""

from tunelater import interrupt


def main() -> None:
    """Entry point. What takes time to import is imported once Ctrl-C is quiet."""
    interrupt.quiet()
    from tunelater.cli import app

    app()


if __name__ == "__main__":
    main()
