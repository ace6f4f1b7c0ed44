"""One module per subcommand; `tenfold.launcher.cli.main.COMMANDS` is the table of them."""
