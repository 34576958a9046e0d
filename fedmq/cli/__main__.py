"""`python -m fedmq.cli`."""

from fedmq.cli import main

if __name__ == "__main__":
    main()
