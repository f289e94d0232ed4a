"""The one error that hwnas raises for anything a user can fix."""


class HwnasError(Exception):
    """What is wrong, and the command or change that fixes it.

    The command line prints it as one line and exits with code 2.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}" if fix else problem)
