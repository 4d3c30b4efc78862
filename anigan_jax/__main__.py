"""`python -m anigan_jax VERB ...`."""

from anigan_jax.cli.main import main

if __name__ == "__main__":
    main()
