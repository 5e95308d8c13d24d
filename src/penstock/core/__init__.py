"""The pure engine: no clock, no dice, no disk, no network; standard library and msgspec only."""
