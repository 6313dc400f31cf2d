"""What can go wrong, in one sentence each; the command line turns these into exit codes."""


class HwquantError(Exception):
    """Base of every error that is the user's to mend: exit code 2, the message alone is printed."""


class UnsupportedModel(HwquantError):
    """The network holds something that hwquant cannot compute; names the node and the reason."""


class BadInput(HwquantError):
    """A file or option is unusable; names it, its value and the permitted range."""


class DoesNotFit(HwquantError):
    """A plan or device is too small; says what is short and by how much."""


class MissingTool(HwquantError):
    """A simulator or synthesis tool is absent; says how to install it."""


class ToolFailed(HwquantError):
    """An external tool stopped with an error; quotes its last lines and names its log."""


class VerificationError(Exception):
    """Hardware differs from golden: exit code 1."""
