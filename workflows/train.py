"""`corpusmill train …`: models of the user's own, from the user's own files, for the scorers of a recipe."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help=__doc__)
