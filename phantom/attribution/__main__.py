"""`python -m phantom.attribution`."""

from phantom.attribution.benchmark import main
from xray import script

if __name__ == "__main__":
    script.run(main)
