"""Run the command line: ``python -m deepbedmap``."""

from deepbedmap.cli.running import main

if __name__ == "__main__":
    main()
