"""The network and its people: listener, intake, settling, worker, sender, settings and the command line."""
