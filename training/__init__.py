"""How models are made, judged and replaced, and the phantom whose truth is known in closed form."""
