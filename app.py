"""The way in: `python app.py` runs the whole portal, `flask --app app …` its commands."""

from portal import create_app  # noqa: F401 (flask looks for this name)

if __name__ == "__main__":
    from portal.serve import main

    raise SystemExit(main())
