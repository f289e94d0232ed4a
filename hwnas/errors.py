"""The one error that hwnas raises for anything a user can mend."""


class HwnasError(Exception):
    """What is wrong, and the command or change that mends it.

    The command line prints it as one line and exits with code 2.
    """

    def __init__(self, problem: str, mend: str = "") -> None:
        self.problem = problem
        self.mend = mend
        super().__init__(f"{problem}; {mend}" if mend else problem)
