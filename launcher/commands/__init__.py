"""One module per subcommand; `tenfold.launcher.main.COMMANDS` is the table of them."""
