from xray import script

from .command import main

if __name__ == "__main__":
    script.run(main)
