"""`python -m docs.make_diagrams`: draw all pictures."""

from docs import make_diagrams

if __name__ == "__main__":
    make_diagrams.write()
