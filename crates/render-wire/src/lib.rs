//! The messages between the server and a render worker, and nothing else.
#![no_std]
extern crate alloc;
