//! What Framehook believes and decides, as functions of their inputs. No clock, no I/O, no logging, no randomness.
