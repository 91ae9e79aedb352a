"""The way in: `python app.py` runs the whole portal, `flask --app app …` its commands."""

from __future__ import annotations

import sys

from flask import Flask

import portal


def create_app() -> Flask:
    """The application for flask's commands; a setting that cannot be used ends them with one sentence."""
    try:
        return portal.create_app()
    except portal.SettingError as wrong:
        sys.exit(f"The portal cannot start: {wrong}")


if __name__ == "__main__":
    from portal.serve import main

    sys.exit(main())
