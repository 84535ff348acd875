"""`python -m vlm_r1.cli`: the command line where no script is installed."""

from vlm_r1.cli.main import main

if __name__ == "__main__":
    main()
