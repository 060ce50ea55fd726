"""The command line: one file a verb, a thin layer on the library.  Nothing else imports click or rich."""
