"""The one exception that is meant for people."""


class UserError(Exception):
    """A mistake of the user's; the command line prints it in one line, exit code 2."""
