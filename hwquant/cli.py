"""The command line: verbs, exit codes, and one sentence for every error.

Exit codes: 0 done, 1 hardware differs from golden, 2 usage, unsupported network, does not fit or
missing tool, 130 interrupted.
"""

import sys
from typing import Any, NoReturn

import click

from hwquant import __version__
from hwquant.commands import evaluate, gen, show, synth, verify
from hwquant.errors import HwquantError, VerificationError

_DIFFERS, _REFUSED, _INTERRUPTED = 1, 2, 130


class Verbs(click.Group):
    """A group whose errors are one line on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run a verb and exit."""
        kwargs["standalone_mode"] = False  # errors come here, whatever the caller asked for
        try:
            super().main(*args, **kwargs)
        except click.Abort:
            _fail("interrupted", _INTERRUPTED)
        except click.ClickException as error:
            _fail(error.format_message(), _REFUSED)
        except VerificationError as error:
            _fail(str(error), _DIFFERS)
        except HwquantError as error:
            _fail(str(error), _REFUSED)
        except MemoryError as error:
            _fail(f"not enough memory: {error}", _REFUSED)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of stdout has gone; Python would complain at exit
            sys.exit(_REFUSED)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}", _REFUSED)
        sys.exit(0)


def _fail(sentence: str, code: int) -> NoReturn:
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(code)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hwquant")
def main() -> None:
    """Turn a float ONNX network into Verilog that is proved to compute it at 2 to 8 bits.

    Results go to stdout, progress to stderr. Exit codes: 0 done, 1 hardware differs from golden,
    2 usage, unsupported network, does not fit, or missing tool.
    """


for verb in (gen.gen, evaluate.evaluate, verify.verify, synth.synth, show.show):
    main.add_command(verb)


if __name__ == "__main__":
    main()
