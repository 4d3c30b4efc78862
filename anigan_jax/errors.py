"""The one exception that is meant for people."""


class UserError(Exception):
    """A mistake of the user's; the command line prints it in one line, exit code 2."""


def printable(text: object) -> str:
    """Names are untrusted: what no terminal shows, or what would steer it, is escaped."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return "".join(shown)
