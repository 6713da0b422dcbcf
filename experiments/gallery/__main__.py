from xray import script

from .pages import main

if __name__ == "__main__":
    script.run(main)
