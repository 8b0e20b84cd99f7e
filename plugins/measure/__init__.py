"""Pure functions on a mask and a volume: axes, volume, density, uptake."""
