"""The three documents of a predetermined change control plan for each family of models that is retrained here."""
