"""Groups and projects: create, rename, delete, members, settings that are handed down, lists."""
