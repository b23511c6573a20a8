"""`python -m docs.make_reference`: write the pages, and name those that changed."""

from docs import make_reference

if __name__ == "__main__":
    for name in make_reference.write():
        print(f"docs/{name}.md")  # noqa: T201
