"""What people drew elsewhere, brought into the form that models learn from: a folder with `manifest.json`."""
