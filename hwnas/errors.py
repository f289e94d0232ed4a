"""The error for any problem that the user can fix."""

from __future__ import annotations


class HwnasError(Exception):
    """An error that the user can fix: ``problem`` says what is wrong, ``fix`` is the command or change that fixes it.

    The command line prints both in one line and exits with code 2.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}" if fix else problem)

    def __reduce__(self) -> tuple[type[HwnasError], tuple[str, str]]:
        return type(self), (self.problem, self.fix)
