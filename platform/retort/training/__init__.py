"""Student training: examples, packing, the loop, and its life under Ray Train."""
