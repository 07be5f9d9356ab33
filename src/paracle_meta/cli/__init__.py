"""The command `paracle`: parses, calls and prints; what is done is decided elsewhere.

A module here with commands has an `app`, is imported only when one of its commands runs or is
explained, and itself imports the rest of the package inside the commands. So asking for help costs
no more than typer, and remembering a value loads nothing that only a migration needs.

These modules do not postpone the evaluation of annotations: typer reads them at run time.
"""
