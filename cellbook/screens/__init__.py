"""Where tables and cells come from: the real BBBC021, its stand-ins, a reader's own screen."""
