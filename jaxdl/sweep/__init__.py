"""Many runs from one command: lists and ranges of flags, a ledger, and engines that run them."""
