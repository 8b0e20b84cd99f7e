"""HTTP: the pages that people see, the JSON that programs ask, and the guard before all of it."""
